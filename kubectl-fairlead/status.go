// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/gather"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var statusFormats = []string{"text", "json", "yaml"}

// again is how often --wait looks.
const again = 2 * time.Second

type statusOptions struct {
	clusters clusterFlags
	format   string
	wait     bool
	timeout  time.Duration
}

func statusCommand() *cobra.Command {
	o := &statusOptions{}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How clusters, nodes, tunnels, services and policies are",
		Long: `Judges the mesh as each cluster sees it. What is healthy takes one line; what is not
is told in full, with what to do next. The first failing line is where to begin.

Exit codes: 0 healthy, 1 unhealthy, 2 wrong usage or a cluster can't be reached.`,
		Example: `  kubectl fairlead status
  kubectl fairlead status --context east --context west
  kubectl fairlead status --wait --timeout 2m
  kubectl fairlead status -o json | jq -r '.clusters[].checks[] | select(.state != "ok") | .id'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.Context(), os.Stdout, os.Stderr)
		},
	}
	o.clusters.add(cmd.Flags())
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "text, json or yaml")
	cmd.Flags().BoolVar(&o.wait, "wait", false, "wait until everything is healthy")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	return cmd
}

func (o *statusOptions) run(ctx context.Context, out *os.File, says io.Writer) error {
	if !slices.Contains(statusFormats, o.format) {
		return fmt.Errorf("-o %s: give one of %v", o.format, statusFormats)
	}
	clusters, err := o.clusters.clusters()
	if err != nil {
		return err
	}
	look := func() evaluate.Report {
		return evaluate.Evaluate(each(clusters, func(c cluster) evaluate.Snapshot {
			return gather.Cluster(ctx, c.name, c.config)
		}))
	}
	report := look()
	if o.wait {
		report = o.until(ctx, says, report, look)
	}
	if err := render.Status(out, o.format, render.Colour(out), report); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if code := report.ExitCode(); code != evaluate.ExitHealthy {
		return exitError(code)
	}
	return nil
}

// until looks again until all is healthy, and says what it waits for whenever that changes.
func (o *statusOptions) until(ctx context.Context, says io.Writer, report evaluate.Report, look func() evaluate.Report) evaluate.Report {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	told := ""
	for report.State == evaluate.Failing {
		c, first := report.FirstFailing()
		if now := fmt.Sprintf("waiting for %s: %s: %s", c.Context, first.Section, first.Summary); now != told {
			told = now
			fmt.Fprintln(says, now)
		}
		select {
		case <-ctx.Done():
			return report
		case <-time.After(again):
			report = look()
		}
	}
	return report
}
