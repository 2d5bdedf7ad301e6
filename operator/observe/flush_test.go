// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

type counted struct {
	deltas []export.Delta
}

func (c *counted) Changed(_ *v1alpha1.ClusterMeshSpec, d export.Delta) {
	c.deltas = append(c.deltas, d)
}

func TestSinksGetChangesOfRecordsOnly(t *testing.T) {
	o, sink := New(nil, "test", slog.New(slog.DiscardHandler)), &counted{}
	o.AddSinks(sink)
	step := func(what string, want int, change func(*export.State)) {
		t.Helper()
		was := len(sink.deltas)
		o.change(change)
		o.flush()
		if got := len(sink.deltas) - was; got != want {
			t.Errorf("%s: %d calls, want %d", what, got, want)
		}
	}
	report := func(key string, at time.Time) func(*export.State) {
		when := metav1.NewTime(at)
		return func(s *export.State) {
			s.SetMeshNode("n1", &v1alpha1.MeshNode{Status: v1alpha1.MeshNodeStatus{WireGuardPublicKey: key, LastReportTime: &when}})
		}
	}
	pod := func(name, app string) func(*export.State) {
		return func(s *export.State) {
			s.SetPod("shop", name, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": app}}, Spec: corev1.PodSpec{NodeName: "n1"},
			})
		}
	}
	begin := time.Unix(1_000_000, 0)
	step("nothing known, for the first time", 1, func(*export.State) {})
	step("nothing known", 0, func(*export.State) {})
	step("a membership", 1, func(s *export.State) {
		o.mesh = &v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}}
		s.SetMesh(o.mesh)
	})
	step("a node", 1, func(s *export.State) {
		s.SetNode("n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
		}})
	})
	step("an agent's key", 1, report("Ahz4mFsvIkUN8Bsww1bgh3Ay43kZe8LzIYpfJV8PLXs=", begin))
	step("an agent's report with the same key", 0, report("Ahz4mFsvIkUN8Bsww1bgh3Ay43kZe8LzIYpfJV8PLXs=", begin.Add(time.Minute)))
	step("a namespace", 0, func(s *export.State) { s.SetNamespace("shop", nil, false) })
	// No record yet, but somebody has to give it a number.
	step("a pod without a number", 1, pod("a", "web"))
	if !sink.deltas[len(sink.deltas)-1].Unnumbered {
		t.Error("the delta doesn't say that a pod has no number")
	}
	step("its number", 1, func(s *export.State) {
		s.SetIdentity(1<<16|256, s.Unnumbered()[0])
	})
	step("a pod with a number but no address", 0, pod("b", "web"))
}

// Without a claim of its own a cluster has no identities and believes no other cluster, so a typo must not come into force.
func TestAMembershipThatCannotBeUsedChangesNothing(t *testing.T) {
	o, sink := New(nil, "test", slog.New(slog.DiscardHandler)), &counted{}
	o.AddSinks(sink)
	m := &v1alpha1.ClusterMesh{Spec: v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}}}
	o.change(func(s *export.State) {
		o.setMesh(s, m)
		s.SetIdentity(1<<16|256, map[string]string{"app": "web"})
	})
	o.flush()
	typo := m.DeepCopy()
	typo.Spec.PodCIDRs = append(typo.Spec.PodCIDRs, "10.77.3.0/16")
	o.change(func(s *export.State) { o.setMesh(s, typo) })
	o.flush()
	if len(sink.deltas) != 1 {
		t.Errorf("changed %v", sink.deltas[1:])
	}
}
