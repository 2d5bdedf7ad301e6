// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/gather"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

var versionFormats = []string{"text", "json", "yaml"}

func versionCommand() *cobra.Command {
	var (
		flags  clusterFlags
		format string
		client bool
	)
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Versions of this plugin, of the operators and of the agents",
		Example: "  kubectl fairlead version\n  kubectl fairlead version --client",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(versionFormats, format) {
				return fmt.Errorf("-o %s: give one of %v", format, versionFormats)
			}
			report := evaluate.Versions{Client: version}
			if !client {
				clusters, err := flags.clusters()
				if err != nil {
					return err
				}
				report.Clusters = evaluate.VersionsOf(each(clusters, func(c cluster) evaluate.Snapshot {
					return gather.Cluster(cmd.Context(), c.name, c.config)
				}))
			}
			if err := render.Versions(os.Stdout, format, report); err != nil {
				return fmt.Errorf("write the versions: %w", err)
			}
			if report.Unreachable() {
				return exitError(evaluate.ExitUnusable)
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, json or yaml")
	cmd.Flags().BoolVar(&client, "client", false, "only this plugin's version; asks no cluster")
	return cmd
}
