// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-mesh/fairlead/hack/lab/node"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Options say how to bring an instance up.
type Options struct {
	// Spec is what to bring up. For an instance that exists, clusters and
	// nodes may be left out, and may grow.
	Spec topology.Spec
	// LabProgram is the lab's own program, which is run to serve Git.
	LabProgram string
	// Progress gets a line for each step.
	Progress io.Writer
}

// Up brings the instance up. What is up already stays as it is, so Up also
// repairs: it starts again whatever died.
func Up(ctx context.Context, tools *toolchain.Cache, o Options) (*Lab, error) {
	if err := topology.ValidName(o.Spec.Name); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, o.Spec.Name)
	if err != nil {
		return nil, err
	}
	defer unlock(keepLock)
	spec, err := grow(existing(o.Spec.Name), o.Spec)
	if err != nil {
		return nil, err
	}
	// Checked before anything is made or registered.
	if _, err := topology.New(spec, 0); err != nil {
		return nil, err
	}
	e, err := register(ctx, spec.Name)
	if err != nil {
		return nil, err
	}
	in, err := topology.New(spec, e.Index)
	if err != nil {
		return nil, err
	}
	l := &Lab{Topology: in, Dir: e.Dir}
	u := &up{Lab: l, tools: tools, steps: newSteps(o.Progress)}
	if err := u.prepare(ctx, e, o.LabProgram); err != nil {
		return nil, err
	}
	return l, u.run(ctx)
}

// existing finds the instance, also as a reboot has left it. What a crash cut
// short before it was written down does not count.
func existing(name string) *Lab {
	e, err := find(name)
	if err != nil {
		return nil
	}
	l, err := load(name, e)
	if err != nil {
		return nil
	}
	return l
}

const defaultNodes = 2

// grow combines what is asked for with what is there. Taking nodes or
// clusters away is left to `down`: half an instance is hard to tell from a
// broken one.
func grow(old *Lab, spec topology.Spec) (topology.Spec, error) {
	if old == nil {
		if len(spec.Clusters) == 0 {
			spec.Clusters = topology.KnownClusters[:2]
		}
		if spec.Nodes == 0 {
			spec.Nodes = defaultNodes
		}
		return spec, nil
	}
	have := old.Topology.Spec
	if spec.Nodes != 0 && spec.Nodes < have.Nodes {
		return spec, fmt.Errorf("instance %s has %d nodes a cluster: to have %d, take it down first", spec.Name, have.Nodes, spec.Nodes)
	}
	have.Nodes = max(have.Nodes, spec.Nodes)
	for _, c := range spec.Clusters {
		if !slices.Contains(have.Clusters, c) {
			have.Clusters = append(have.Clusters, c)
		}
	}
	return have, nil
}

type up struct {
	*Lab
	tools *toolchain.Cache
	steps *steps
}

// prepare makes the directories and writes down what the instance is made of.
func (u *up) prepare(ctx context.Context, e entry, labProgram string) error {
	for _, dir := range []string{"bin", "hub", "images", "clusters", "nodes"} {
		if err := os.MkdirAll(u.path(dir), 0o755); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	raw, err := json.MarshalIndent(u.Topology.Spec, "", "  ")
	if err != nil {
		return fmt.Errorf("write instance file: %w", err)
	}
	if err := os.WriteFile(u.path(specFile), raw, 0o644); err != nil {
		return fmt.Errorf("write instance file: %w", err)
	}
	if err := borrow(ctx, u.Topology.Name, &e, node.MountPoints()); err != nil {
		return err
	}
	return copyProgram(labProgram, u.path("bin/lab"))
}

func (u *up) run(ctx context.Context) error {
	if err := upNetwork(u.Topology); err != nil {
		return err
	}
	u.steps.done("network of %d namespaces", len(u.Topology.Parts()))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return u.hub(ctx) })
	images := &bundle{}
	imagesReady := make(chan error, 1)
	go func() { imagesReady <- images.build(ctx, u.path("images"), u.tools) }()
	for i := range u.Topology.Clusters {
		g.Go(func() error { return u.cluster(ctx, &u.Topology.Clusters[i], images) })
	}
	images.wait = func() error {
		err := <-imagesReady
		imagesReady <- err // for the next that asks
		return err
	}
	if err := g.Wait(); err != nil {
		return err
	}
	u.steps.done("instance %s is up", u.Topology.Name)
	return nil
}

func (u *up) hub(ctx context.Context) error {
	h := u.Hub()
	if err := h.UpEtcd(ctx, u.tools); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	if err := h.UpGit(ctx); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	u.steps.done("hub: shared etcd %s and Git server %s", topology.EtcdURL, topology.GitURL)
	return nil
}

// copyProgram keeps a copy of the lab's program, which may be a temporary
// file of `go run`. The copy is replaced, never overwritten: it may be
// running.
func copyProgram(source, target string) error {
	content, err := os.ReadFile(source)
	if err != nil {
		return fmt.Errorf("copy the lab's program: %w", err)
	}
	if err := os.WriteFile(target+".new", content, 0o755); err != nil {
		return errors.Join(fmt.Errorf("copy the lab's program: %w", err), os.Remove(target+".new"))
	}
	return os.Rename(target+".new", target)
}
