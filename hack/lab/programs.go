// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

func runStatus(ctx context.Context, args []string) error {
	f := newFlags("status").withInstance()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := f.noArgs(); err != nil {
		return err
	}
	names := []string{f.instance}
	if f.instance == "" {
		var err error
		if names, err = instance.Names(); err != nil {
			return err
		}
	}
	tools, err := toolchain.Find()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		fmt.Println("there are no instances")
	}
	for _, name := range names {
		if err := printStatus(ctx, name, tools); err != nil {
			return err
		}
	}
	return nil
}

func printStatus(ctx context.Context, name string, tools *toolchain.Cache) error {
	lab, err := instance.Open(name)
	if err != nil {
		return err
	}
	fmt.Printf("instance %s in %s\n", name, lab.Dir)
	programs, err := lab.Programs(tools)
	if err != nil {
		return err
	}
	dead := 0
	for _, p := range programs {
		if _, ok := p.Running(); !ok {
			dead++
			fmt.Printf("  %s does not run, its log: %s\n", p.ID(), p.Log())
		}
	}
	fmt.Printf("  %d of %d programs run\n", len(programs)-dead, len(programs))
	for _, c := range lab.Clusters(ctx) {
		if c.Error != nil {
			fmt.Printf("  %s: %v\n", c.Name, c.Error)
			continue
		}
		for _, n := range c.Nodes {
			if n.Error != nil {
				fmt.Printf("  %s: not ready: %v\n", n.Name, n.Error)
				continue
			}
			fmt.Printf("  %s: ready\n", n.Name)
		}
	}
	return nil
}

func runPIDs(_ context.Context, args []string) error {
	f := newFlags("pids").withInstance()
	lab, tools, err := open(f, args)
	if err != nil {
		return err
	}
	programs, err := lab.Programs(tools)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, p := range programs {
		pid, _ := p.Running() // 0 when it does not run
		fmt.Fprintf(w, "%s\t%s\t%d\n", p.Part, p.Name, pid)
	}
	return w.Flush()
}

func runStop(ctx context.Context, args []string) error {
	return onPrograms(ctx, "stop", args, (*instance.Lab).Stop)
}

func runStart(ctx context.Context, args []string) error {
	return onPrograms(ctx, "start", args, (*instance.Lab).Start)
}

func runKill(ctx context.Context, args []string) error {
	return onPrograms(ctx, "kill", args, (*instance.Lab).Kill)
}

func onPrograms(ctx context.Context, verb string, args []string, do func(*instance.Lab, context.Context, *toolchain.Cache, string) error) error {
	f := newFlags(verb).withInstance()
	lab, tools, err := open(f, args)
	if err != nil {
		return err
	}
	if f.NArg() == 0 {
		return usagef("%s: which program? PART-NAME of what `lab pids` lists, like hub-etcd or east-1-kubelet", verb)
	}
	for _, program := range f.Args() {
		if err := do(lab, ctx, tools, program); err != nil {
			return err
		}
	}
	return nil
}
