// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Program is one of an instance's long-lived programs.
type Program struct {
	Part string // the node, cluster or hub it belongs to
	process.Spec
}

// ID names the program within its instance, as in "hub-etcd".
func (p Program) ID() string { return p.Part + "-" + p.Name }

// Programs lists the instance's programs, in the order of their start.
func (l *Lab) Programs(tools *toolchain.Cache) ([]Program, error) {
	var all []Program
	add := func(part string, specs ...process.Spec) {
		for _, s := range specs {
			all = append(all, Program{Part: part, Spec: s})
		}
	}
	add(topology.Hub, l.Hub().Etcd(tools), l.Hub().Git())
	for i := range l.Topology.Clusters {
		c := &l.Topology.Clusters[i]
		cp, err := l.controlPlane(c.Name)
		if err != nil {
			return nil, err
		}
		add(c.Name, cp.Processes(tools)...)
		nodes, err := l.nodes(c.Name)
		if err != nil {
			return nil, err
		}
		for _, n := range nodes {
			add(n.Name(), n.Processes(tools)...)
		}
	}
	return all, nil
}

func (l *Lab) program(tools *toolchain.Cache, id string) (Program, error) {
	all, err := l.Programs(tools)
	if err != nil {
		return Program{}, err
	}
	var ids []string
	for _, p := range all {
		if p.ID() == id {
			return p, nil
		}
		ids = append(ids, p.ID())
	}
	return Program{}, fmt.Errorf("instance %s has no program %q: want one of %s", l.Topology.Name, id, strings.Join(ids, " "))
}

// Stop ends the program; what it stored stays.
func (l *Lab) Stop(_ context.Context, tools *toolchain.Cache, id string) error {
	p, err := l.program(tools, id)
	if err != nil {
		return err
	}
	return p.Spec.Stop(10 * time.Second)
}

// Kill ends the program without warning.
func (l *Lab) Kill(_ context.Context, tools *toolchain.Cache, id string) error {
	p, err := l.program(tools, id)
	if err != nil {
		return err
	}
	return p.Spec.Stop(0)
}

// Start starts the program if it does not run.
func (l *Lab) Start(_ context.Context, tools *toolchain.Cache, id string) error {
	p, err := l.program(tools, id)
	if err != nil {
		return err
	}
	_, err = process.Start(p.Spec)
	return err
}
