// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

// cached is a client that reads as a cache does, by copies, and writes at no cost.
type cached struct {
	client.Client

	mu       sync.Mutex
	mesh     *v1alpha1.ClusterMesh
	clusters *v1alpha1.MeshClusterList
	policies map[string]*v1alpha1.MeshNetworkPolicy
	writes   int
}

func (c *cached) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch into := into.(type) {
	case *v1alpha1.ClusterMesh:
		c.mesh.DeepCopyInto(into)
		return nil
	case *v1alpha1.MeshNetworkPolicy:
		if p := c.policies[key.Name]; p != nil {
			p.DeepCopyInto(into)
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
}

func (c *cached) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if into, ok := into.(*v1alpha1.MeshClusterList); ok {
		c.clusters.DeepCopyInto(into)
	}
	return nil
}

func (c *cached) Status() client.SubResourceWriter { return writer{c: c} }

type writer struct {
	client.SubResourceWriter
	c *cached
}

func (w writer) Patch(_ context.Context, o client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	w.c.writes++
	switch o := o.(type) {
	case *v1alpha1.MeshNetworkPolicy:
		w.c.policies[o.Name] = o.DeepCopy()
	case *v1alpha1.ClusterMesh:
		w.c.mesh = o.DeepCopy()
	case *v1alpha1.MeshCluster:
		for i := range w.c.clusters.Items {
			if w.c.clusters.Items[i].Name == o.Name {
				w.c.clusters.Items[i] = *o.DeepCopy()
			}
		}
	}
	return nil
}

// others is a federation of clusters that are all well.
type others struct{ overview federate.Overview }

func (o others) Overview() federate.Overview { return o.overview }

// BenchmarkPass is what one pass costs after a node reported one policy anew, in a mesh of 100 clusters, each of whose 20
// nodes has a tunnel to every node here.
func BenchmarkPass(b *testing.B) {
	for _, size := range []struct{ policies, nodes int }{{500, 100}, {1000, 500}} {
		b.Run(fmt.Sprintf("%d policies, %d nodes", size.policies, size.nodes), func(b *testing.B) {
			s, reports := benchStatus(size.policies, size.nodes)
			for range 2 + size.policies/policiesAPass { // until everything is written
				if err := s.write(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			kube := s.client.(*cached)
			kube.writes = 0
			n := 0
			for ; b.Loop(); n++ {
				s.ledger.setAgent("node-0007", reports[n%2])
				if err := s.write(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			if kube.writes != n {
				b.Fatalf("%d writes after %d changes", kube.writes, n)
			}
		})
	}
}

func benchStatus(policies, nodes int) (*Status, [2]*v1alpha1.MeshNode) {
	const clusters, theirs = 100, 20
	kube := &cached{mesh: mesh(), clusters: &v1alpha1.MeshClusterList{}, policies: map[string]*v1alpha1.MeshNetworkPolicy{}}
	o := federate.Overview{Remotes: map[string]federate.RemoteOverview{}}
	at := metav1.NewTime(now)
	report := &v1alpha1.MeshNode{Status: v1alpha1.MeshNodeStatus{WireGuardPublicKey: "key", Encryption: "userspace WireGuard", LastReportTime: &at}}
	for i := range clusters {
		name := fmt.Sprintf("cluster-%03d", i)
		kube.clusters.Items = append(kube.clusters.Items, v1alpha1.MeshCluster{ObjectMeta: metav1.ObjectMeta{Name: name}})
		o.Remotes[name] = federate.RemoteOverview{
			State:    store.ClusterState{Synced: true, Heartbeat: now},
			Decision: &federate.Decision{Claim: &record.Claim{Name: name}}, Records: map[string]int32{record.KindNode: theirs},
		}
		report.Status.Tunnels = append(report.Status.Tunnels, v1alpha1.NodeTunnels{Cluster: name, Wanted: theirs, Ready: theirs})
	}
	s := NewStatus(StatusConfig{Client: kube, Connection: connected{}, Intake: others{o}, Discoverer: still{}, Log: slog.New(slog.DiscardHandler)})
	s.now = func() time.Time { return now }
	var changes []export.Change
	for i := range policies {
		name := fmt.Sprintf("policy-%04d", i)
		kube.policies[name] = policyObject(name)
		changes = append(changes, exported(name, "1"))
		report.Status.Policies = append(report.Status.Policies, enforced(exported(name, "1")))
	}
	s.Changed(&kube.mesh.Spec, export.Delta{Local: changes})
	for i := range nodes {
		name := fmt.Sprintf("node-%04d", i)
		s.ledger.setNode(name, true)
		s.ledger.setAgent(name, report.DeepCopy())
	}
	behind := report.DeepCopy()
	behind.Status.Policies[42].Revision = "0"
	return s, [2]*v1alpha1.MeshNode{behind, report.DeepCopy()}
}
