// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/hub"
	"github.com/fairlead-mesh/fairlead/hack/lab/image"
	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

func needRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can make network namespaces and mounts: run as root")
	}
	return nil
}

// ensureTools opens the cache of programs and fills it first if need be.
func ensureTools(ctx context.Context) (*toolchain.Cache, error) {
	tools, err := toolchain.Find()
	if err != nil {
		return nil, err
	}
	if err := toolchain.EnsurePackages(ctx, os.Stdout); err != nil {
		return nil, err
	}
	return tools, tools.Ensure(ctx, os.Stdout)
}

func runTools(ctx context.Context, args []string) error {
	f := newFlags("tools")
	if err := errors.Join(f.parse(args), f.noArgs(), needRoot()); err != nil {
		return err
	}
	started := time.Now()
	if _, err := ensureTools(ctx); err != nil {
		return err
	}
	fmt.Printf("[%5.1fs] tools are ready\n", time.Since(started).Seconds())
	return nil
}

func runUp(ctx context.Context, args []string) error {
	f := newFlags("up").withInstance().withClusters()
	f.IntVar(&f.nodes, "nodes", 0, "nodes of each cluster")
	if err := f.parse(args, "instance"); err != nil {
		return err
	}
	if err := f.noArgs(); err != nil {
		return err
	}
	spec := topology.Spec{Name: f.instance, Clusters: f.clusterList(), Nodes: f.nodes}
	if err := checkSpec(spec); err != nil {
		return err
	}
	if err := needRoot(); err != nil {
		return err
	}
	tools, err := ensureTools(ctx)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the lab's own program: %w", err)
	}
	_, err = instance.Up(ctx, tools, instance.Options{Spec: spec, LabProgram: program, Progress: os.Stdout})
	return err
}

// checkSpec finds mistakes before the tools are built, which may take long.
func checkSpec(spec topology.Spec) error {
	if len(spec.Clusters) == 0 {
		spec.Clusters = topology.KnownClusters
	}
	if spec.Nodes == 0 {
		spec.Nodes = 1
	}
	if _, err := topology.New(spec, 0); err != nil {
		return usageError{err}
	}
	return nil
}

func runDown(ctx context.Context, args []string) error {
	f := newFlags("down").withInstance()
	if err := f.parse(args, "instance"); err != nil {
		return err
	}
	if err := f.noArgs(); err != nil {
		return err
	}
	if err := topology.ValidName(f.instance); err != nil {
		return usageError{err}
	}
	if err := needRoot(); err != nil {
		return err
	}
	return instance.Down(ctx, f.instance, os.Stdout)
}

// open parses the flags of a verb that works on an instance, and opens it.
func open(f *flags, args []string, required ...string) (*instance.Lab, *toolchain.Cache, error) {
	if err := f.parse(args, append(required, "instance")...); err != nil {
		return nil, nil, err
	}
	lab, err := instance.Open(f.instance)
	if err != nil {
		return nil, nil, err
	}
	tools, err := toolchain.Find()
	return lab, tools, err
}

func runKubeconfig(_ context.Context, args []string) error {
	f := newFlags("kubeconfig").withInstance().withCluster()
	lab, _, err := open(f, args, "cluster")
	if err != nil {
		return err
	}
	file, err := lab.Kubeconfig(f.cluster)
	if err != nil {
		return err
	}
	fmt.Println(file)
	return nil
}

func runKubectl(ctx context.Context, args []string) error {
	f := newFlags("kubectl").withInstance().withCluster()
	lab, tools, err := open(f, args, "cluster")
	if err != nil {
		return err
	}
	config, err := lab.Kubeconfig(f.cluster)
	if err != nil {
		return err
	}
	return pass(ctx, append([]string{tools.Program("kubectl"), "--kubeconfig", config}, f.Args()...))
}

func runExec(ctx context.Context, args []string) error {
	f := newFlags("exec").withInstance()
	f.StringVar(&f.node, "node", "", "a node, a cluster (its router), wan or hub")
	lab, _, err := open(f, args, "node")
	if err != nil {
		return err
	}
	if f.NArg() == 0 {
		return usagef("exec: which command?")
	}
	where, err := lab.Where(f.node)
	if err != nil {
		return err
	}
	// In the part's cgroup, so that `down` ends it and that programs attached
	// to the node's cgroup see its connections.
	if err := process.Join(lab.Topology.Cgroup(f.node)); err != nil {
		return err
	}
	return pass(ctx, where.Command(f.Args()...))
}

func runLoadImage(ctx context.Context, args []string) error {
	f := newFlags("load-image").withInstance().withClusters()
	lab, tools, err := open(f, args)
	if err != nil {
		return err
	}
	if f.NArg() == 0 {
		return usagef("load-image: which image? want name:tag=binary[,file=/path/in/image…]")
	}
	var images []image.Image
	for _, arg := range f.Args() {
		img, err := image.Parse(arg)
		if err != nil {
			return usageError{err}
		}
		images = append(images, img)
	}
	for _, img := range images {
		started := time.Now()
		if err := lab.LoadImage(ctx, tools, img, f.clusterList()...); err != nil {
			return err
		}
		fmt.Printf("[%5.1fs] image %s is on the nodes\n", time.Since(started).Seconds(), img.Name)
	}
	return nil
}

func runServeGit(ctx context.Context, args []string) error {
	f := newFlags("serve-git")
	root := f.String("root", "", "directory of the repositories")
	listen := f.String("listen", ":80", "address to listen on")
	if err := f.parse(args, "root"); err != nil {
		return err
	}
	abs, err := filepath.Abs(*root)
	if err != nil {
		return fmt.Errorf("find the repositories: %w", err)
	}
	return hub.ServeGit(ctx, abs, *listen)
}
