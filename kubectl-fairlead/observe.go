// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/flows"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var (
	observeFormats = []string{"text", "json"}
	verdicts       = []string{"allowed", "denied", "dropped", "audited"}
)

// holdBack is how late a node's verdict may come and still be put in its place when following.
const holdBack = 500 * time.Millisecond

type observeOptions struct {
	clusters clusterFlags
	format   string
	node     string
	since    time.Duration
	last     int
	follow   bool
	filter   flows.Filter
}

func observeCommand() *cobra.Command {
	o := &observeOptions{}
	cmd := &cobra.Command{
		Use:   "observe",
		Short: "Verdicts of all nodes: who, whom, why, by which policy, file and commit",
		Long: `Shows what the agents of all nodes saw, in the order of time: the first packet of each
flow and every kind of drop. It runs the agents' own observe through the Kubernetes API,
so it needs the right to exec in ` + evaluate.Namespace + `.

Exit codes: 0 all agents answered, 1 some did not, 2 wrong usage or none did.`,
		Example: `  kubectl fairlead observe --follow
  kubectl fairlead observe --verdict denied --namespace shop --last 20
  kubectl fairlead observe --pod shop/api --since 5m -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), os.Stdout, os.Stderr)
		},
	}
	f := cmd.Flags()
	o.clusters.add(f)
	f.StringVarP(&o.format, "output", "o", "text", "text or json (one object a line)")
	f.StringSliceVar(&o.filter.Verdicts, "verdict", nil, "only these: "+strings.Join(verdicts, ", "))
	f.StringSliceVarP(&o.filter.Namespaces, "namespace", "n", nil, "only flows from or to pods of these namespaces")
	f.StringSliceVar(&o.filter.Pods, "pod", nil, "only flows from or to these pods: name or namespace/name, a Deployment's name finds its pods")
	f.StringVar(&o.node, "node", "", "only what this node saw")
	f.DurationVar(&o.since, "since", 0, "only what happened in this time, e.g. 5m")
	f.IntVar(&o.last, "last", 0, "only the newest so many")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on with what happens from now on")
	return cmd
}

func (o *observeOptions) validate() error {
	if !slices.Contains(observeFormats, o.format) {
		return fmt.Errorf("-o %s: give one of %v", o.format, observeFormats)
	}
	for _, v := range o.filter.Verdicts {
		if !slices.Contains(verdicts, strings.ToLower(v)) {
			return fmt.Errorf("--verdict %s: give one of %v", v, verdicts)
		}
	}
	if o.last < 0 || o.since < 0 {
		return errors.New("--last and --since can't be negative")
	}
	return nil
}

func (o *observeOptions) run(ctx context.Context, out *os.File, says io.Writer) error {
	if err := o.validate(); err != nil {
		return err
	}
	clusters, err := o.clusters.clusters()
	if err != nil {
		return err
	}
	if o.since > 0 {
		o.filter.Since = time.Now().Add(-o.since)
	}
	agents, failed := o.agents(ctx, clusters, says)
	show := func(vs []flows.Flow) error {
		return render.Flows(out, o.format, render.Colour(out), len(clusters) > 1, vs)
	}
	answered, missed, err := o.gather(ctx, agents, says, show)
	switch {
	case err != nil:
		return fmt.Errorf("write: %w", err)
	case answered == 0:
		if len(agents) == 0 && failed == 0 {
			return fmt.Errorf("no agent runs in %s", evaluate.Namespace)
		}
		return exitError(evaluate.ExitUnusable)
	case missed+failed > 0:
		return exitError(evaluate.ExitUnhealthy)
	}
	return nil
}

// agents of all clusters; the clusters that can't be asked are said and counted.
func (o *observeOptions) agents(ctx context.Context, clusters []cluster, says io.Writer) ([]flows.Agent, int) {
	type found struct {
		agents []flows.Agent
		err    error
	}
	var out []flows.Agent
	failed := 0
	for _, f := range each(clusters, func(c cluster) found {
		agents, err := flows.Agents(ctx, c.name, c.config, o.node)
		return found{agents, err}
	}) {
		if f.err != nil {
			fmt.Fprintln(says, "kubectl fairlead:", f.err)
			failed++
		}
		out = append(out, f.agents...)
	}
	return out, failed
}

// gather asks all agents at once. Following, verdicts are shown as they come, a moment late so that they are in order;
// else when all have answered.
func (o *observeOptions) gather(ctx context.Context, agents []flows.Agent, says io.Writer, show func([]flows.Flow) error) (answered, missed int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		merger  flows.Merger
		seen    = make(chan flows.Flow)
		results = make(chan error)
		wg      sync.WaitGroup
	)
	for _, a := range agents {
		wg.Go(func() {
			results <- a.Observe(ctx, o.args(), func(v flows.Flow) {
				if o.filter.Chooses(v) {
					seen <- v
				}
			})
		})
	}
	tick := time.NewTicker(holdBack)
	defer tick.Stop()
	begun := false
	for answered+missed < len(agents) {
		select {
		case v := <-seen:
			merger.Add(v)
		case e := <-results:
			if e != nil {
				missed++
				fmt.Fprintln(says, "kubectl fairlead:", e)
				continue
			}
			answered++
		case now := <-tick.C:
			if !o.follow || err != nil {
				continue
			}
			ready := merger.Until(now.Add(-holdBack))
			if !begun && len(ready) > 0 { // what the agents remembered; --last is about that
				begun = true
				ready = newest(ready, o.last)
			}
			if err = show(ready); err != nil {
				cancel() // nobody reads; let the agents end and collect them
			}
		}
	}
	wg.Wait()
	if err != nil {
		return answered, missed, err
	}
	rest := merger.All()
	if !o.follow {
		rest = newest(rest, o.last)
	}
	return answered, missed, show(rest)
}

// newest n of them; 0 means all.
func newest(vs []flows.Flow, n int) []flows.Flow {
	if n > 0 && len(vs) > n {
		return vs[len(vs)-n:]
	}
	return vs
}

// everything an agent remembers. Filters are applied here, so that old agents and new filters go together.
const everything = 1 << 20

// args for the agent's own observe.
func (o *observeOptions) args() []string {
	args := []string{"-last", strconv.Itoa(everything)}
	if o.follow {
		args = append(args, "-follow", "-attended")
	}
	return args
}
