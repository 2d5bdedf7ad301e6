// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// size is a cluster whose policies are all in force on all nodes, and belong to one source.
type size struct{ policies, nodes int }

var sizes = []size{{500, 100}, {1000, 500}}

func (s size) String() string { return fmt.Sprintf("%d policies, %d nodes", s.policies, s.nodes) }

func (s size) world() *world {
	w := newWorld()
	inv := inventory{revision: "main@sha1:1"}
	for i := range s.policies {
		key := fmt.Sprintf("east/policies/MeshNetworkPolicy/shop/policy-%04d", i)
		w.policies[key] = wanted(inv.revision, "x")
		inv.keys = append(inv.keys, key)
	}
	w.sources[SourceName{"shop", "source"}] = inv
	for i := range s.nodes {
		name := fmt.Sprintf("node-%04d", i)
		w.nodes[name] = true
		w.agents[name] = &v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, key := range inv.keys {
			w.agents[name].Status.Policies = append(w.agents[name].Status.Policies, v1alpha1.NodePolicy{Key: key, Revision: inv.revision, Content: "x"})
		}
	}
	return w
}

// with is a node's report in which one policy is at another revision.
func (w *world) with(node string, policy int, revision string) *v1alpha1.MeshNode {
	a := w.agents[node].DeepCopy()
	a.Status.Policies[policy].Revision = revision
	return a
}

// BenchmarkOneReport is what a changed report costs: every policy and node looked at, as the oracle does, or the change.
func BenchmarkOneReport(b *testing.B) {
	for _, s := range sizes {
		w := s.world()
		reports := []*v1alpha1.MeshNode{w.with("node-0007", 42, "main@sha1:0"), w.with("node-0007", 42, "main@sha1:1")}
		if s == sizes[0] { // of the other it takes minutes
			b.Run(s.String()+"/whole", func(b *testing.B) {
				for i := 0; b.Loop(); i++ {
					w.agents["node-0007"] = reports[i%2]
					for key := range w.policies {
						w.policy(key)
					}
					for name := range w.sources {
						w.source(name)
					}
				}
			})
		}
		b.Run(s.String()+"/incremental", func(b *testing.B) {
			x := New()
			w.agents["node-0007"] = reports[1]
			w.feed(x)
			x.TakeDirty()
			for i := 0; b.Loop(); i++ {
				x.SetAgent("node-0007", reports[i%2])
				policies, sources := x.TakeDirty()
				if len(policies) != 1 || len(sources) != 1 {
					b.Fatalf("%d policies and %d sources changed", len(policies), len(sources))
				}
				x.Policy(policies[0])
				x.Source(sources[0])
			}
		})
	}
}

// BenchmarkStart is what a new leader pays once.
func BenchmarkStart(b *testing.B) {
	for _, s := range sizes {
		w := s.world()
		b.Run(s.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.feed(New())
			}
		})
	}
}

// BenchmarkCommit is a new commit of a source: the inventory's revision, every policy's version, every node's report.
func BenchmarkCommit(b *testing.B) {
	for _, s := range sizes {
		w := s.world()
		x := New()
		w.feed(x)
		b.Run(s.String(), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				revision := fmt.Sprintf("main@sha1:%d", i+2)
				for name, inv := range w.sources {
					x.SetSource(name, revision, inv.keys)
				}
				for key := range w.policies {
					x.SetPolicy(key, wanted(revision, "x"))
				}
				for name, a := range w.agents {
					a = a.DeepCopy()
					for p := range a.Status.Policies {
						a.Status.Policies[p].Revision = revision
					}
					w.agents[name] = a
					x.SetAgent(name, a)
				}
				policies, _ := x.TakeDirty()
				for _, key := range policies {
					if n := x.Policy(key).Nodes; int(n.Realized) != s.nodes {
						b.Fatalf("%s: %+v", key, n)
					}
				}
			}
		})
	}
}
