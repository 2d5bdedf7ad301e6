// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/files"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/lint"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/render"
)

type testOptions struct {
	format    string
	namespace string
	junit     string
}

func testCommand() *cobra.Command {
	o := &testOptions{}
	cmd := &cobra.Command{
		Use:   "test PATH...",
		Short: "Hold policies in files against what is expected of them, without a cluster",
		Long: `Reads the policies, Namespaces and Pods below each PATH and the expectations beside them
(files named *_test.yaml), and judges each expectation as the agents would. It says which
rule decided where one fails, and which rules no expectation rests on.

Exit codes: 0 all as expected, 1 some not, 2 wrong usage or a mistake in a file.`,
		Example: `  kubectl fairlead policy test policies/
  kubectl fairlead policy test policies/ --junit report.xml`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(os.Stdout, render.Colour(os.Stdout), args) },
	}
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "text, json or yaml")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "of policies and pods that name none (a PolicySource's targetNamespace)")
	cmd.Flags().StringVar(&o.junit, "junit", "", "also write a JUnit report to this file")
	return cmd
}

func (o *testOptions) run(out io.Writer, colour bool, paths []string) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	tree, err := files.Read(paths, o.namespace)
	if err != nil {
		return err
	}
	if len(tree.Files) == 0 {
		return errors.New("no file of expectations (*_test.yaml) found; docs/reference/policy-commands.md shows one")
	}
	report, problems := expect.Run(tree)
	if len(problems) > 0 {
		return &files.ProblemsError{Problems: problems}
	}
	if o.junit != "" {
		if err := writeJUnit(o.junit, report); err != nil {
			return fmt.Errorf("write %s: %w", o.junit, err)
		}
	}
	if err := render.Expectations(out, o.format, colour, report); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if report.Failed > 0 {
		return exitError(1)
	}
	return nil
}

func writeJUnit(name string, r expect.Report) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(render.JUnit(f, r), f.Close())
}

type lintOptions struct {
	clusters  clusterFlags
	format    string
	namespace string
	live      bool
}

func lintCommand() *cobra.Command {
	o := &lintOptions{}
	cmd := &cobra.Command{
		Use:   "lint PATH... | lint --live",
		Short: "Find rules that change nothing, and selectors that mean nobody",
		Long: `Looks at the policies below each PATH, or at those of live clusters, for what is likely a
mistake. Each finding has a code that never changes its meaning; they are explained in
docs/reference/policy-commands.md. Below a PATH, Pods and what files of expectations
describe are the pods that there are.

Exit codes: 0 nothing worse than information, 1 something is, 2 wrong usage, a mistake in
a file or a cluster can't be reached.`,
		Example: `  kubectl fairlead policy lint policies/
  kubectl fairlead policy lint --live --context east --context west -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), os.Stdout, render.Colour(os.Stdout), args)
		},
	}
	o.clusters.add(cmd.Flags())
	cmd.Flags().StringVarP(&o.format, "output", "o", "text", "text, json or yaml")
	cmd.Flags().StringVarP(&o.namespace, "namespace", "n", "", "of policies and pods in files that name none")
	cmd.Flags().BoolVar(&o.live, "live", false, "look at live clusters instead of files; --context and --kubeconfig say which, and imply it")
	return cmd
}

func (o *lintOptions) run(ctx context.Context, out io.Writer, colour bool, paths []string) error {
	if err := checkFormat(o.format); err != nil {
		return err
	}
	live := o.live || len(o.clusters.contexts)+len(o.clusters.kubeconfigs) > 0
	if live == (len(paths) > 0) {
		return errors.New("give paths of files, or --live for clusters, not both")
	}
	meshes, err := o.meshes(ctx, live, paths)
	if err != nil {
		return err
	}
	report := lint.Run(meshes...)
	if err := render.Lint(out, o.format, colour, report); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if code := report.ExitCode(); code != 0 {
		return exitError(code)
	}
	return nil
}

func (o *lintOptions) meshes(ctx context.Context, live bool, paths []string) ([]*world.Mesh, error) {
	if live {
		m, err := o.clusters.mesh(ctx)
		return []*world.Mesh{m}, err
	}
	tree, err := files.Read(paths, o.namespace)
	if err != nil {
		return nil, err
	}
	if len(tree.Files) == 0 {
		tree.Files = []expect.File{{}}
	}
	var out []*world.Mesh
	for _, f := range tree.Files {
		m, err := expect.Mesh(tree, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		out = append(out, m)
	}
	return out, nil
}
