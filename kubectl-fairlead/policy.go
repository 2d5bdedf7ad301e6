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

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/gather"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var policyFormats = []string{"text", "json", "yaml"}

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Ask what policies make of a connection, test and check them"}
	cmd.AddCommand(explainCommand(), testCommand(), lintCommand())
	return cmd
}

func checkFormat(format string) error {
	if !slices.Contains(policyFormats, format) {
		return fmt.Errorf("-o %s: give one of %v", format, policyFormats)
	}
	return nil
}

type explainOptions struct {
	clusters clusterFlags
	format   string
}

func explainCommand() *cobra.Command {
	o := &explainOptions{}
	cmd := &cobra.Command{
		Use:   "explain FROM TO[:PORT[/PROTOCOL]]",
		Short: "What policies make of a connection, and which rule, file and commit decide",
		Long: `Says what both sides' policies make of a connection, whether or not it ever happened:
egress at FROM, ingress at TO, each with the rule that decides, its policy, file and
commit. It is judged by the engine that the agents' maps are tested against, and only
as far as the nodes' agents report that they enforce these policies.

FROM and TO are a pod ([cluster/]namespace/pod), a service (svc/[cluster/]namespace/name,
judged by all that it leads to), a node (node/[cluster/]name) or an address (10.1.2.3,
fd00::1, with a port [fd00::1]:80). PROTOCOL is TCP, UDP or SCTP; :icmp asks about a ping, :TYPE/ICMP about
other messages (:TimestampRequest/ICMP, :13/ICMP).
Without a port, all ports that the pods or the service declare are judged. Ends in
several clusters need a --context for each.

Exit codes: 0 allowed, 1 denied (at least in part), 2 wrong usage, or something that
matters could not be read.`,
		Example: `  kubectl fairlead policy explain shop/web-0 shop/api-0:8080
  kubectl fairlead policy explain east/shop/web-0 svc/shop/api --context east --context west
  kubectl fairlead policy explain 198.51.100.7 shop/web-0:443 -o json`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), os.Stdout, args) },
	}
	o.clusters.add(cmd.Flags())
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "text, json or yaml")
	return cmd
}

func (o *explainOptions) run(ctx context.Context, out *os.File, args []string) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	from, err := explain.ParseEnd(args[0])
	if err != nil {
		return fmt.Errorf("FROM: %w", err)
	}
	to, err := explain.ParseTarget(args[1])
	if err != nil {
		return fmt.Errorf("TO: %w", err)
	}
	mesh, err := o.clusters.mesh(ctx)
	if err != nil {
		return err
	}
	return explainTo(out, o.format, render.Colour(out), mesh, from, to)
}

func explainTo(out io.Writer, format string, colour bool, mesh *world.Mesh, from explain.End, to explain.Target) error {
	report, err := explain.Explain(mesh, from, to)
	if err != nil {
		return err
	}
	if err := render.Explain(out, format, colour, report); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if code := report.ExitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

// mesh reads all clusters that were named. One that can't be read is an error: what it holds would be missing everywhere.
func (f *clusterFlags) mesh(ctx context.Context) (*world.Mesh, error) {
	clusters, err := f.clusters()
	if err != nil {
		return nil, err
	}
	type read struct {
		cluster *world.Cluster
		err     error
	}
	m := &world.Mesh{Clusters: map[string]*world.Cluster{}}
	var failed []error
	for _, r := range each(clusters, func(c cluster) read {
		got, err := gather.Policy(ctx, c.name, c.config)
		return read{got, err}
	}) {
		switch {
		case r.err != nil:
			failed = append(failed, r.err)
		case m.Clusters[r.cluster.Name] != nil:
			failed = append(failed, fmt.Errorf("contexts %s and %s are both cluster %s; give one", m.Clusters[r.cluster.Name].Context, r.cluster.Context, r.cluster.Name))
		default:
			m.Clusters[r.cluster.Name] = r.cluster
		}
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	if err := m.Number(); err != nil {
		return nil, fmt.Errorf("give pods their identities: %w", err)
	}
	return m, nil
}
