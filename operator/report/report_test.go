// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// desk is a Reporter over a fake API that counts writes.
type desk struct {
	*Reporter
	kube   client.Client
	writes int
	now    time.Time
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	d := &desk{now: time.Unix(1_000_000, 0)}
	d.kube = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&v1alpha1.MeshNode{}).
		WithObjects(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u1"}}).
		WithInterceptorFuncs(interceptor.Funcs{
			SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
				d.writes++
				return c.SubResource(sub).Patch(ctx, o, p, opts...)
			},
		}).Build()
	d.Reporter = New(d.kube, slog.New(slog.DiscardHandler))
	d.Reporter.now = func() time.Time { return d.now }
	return d
}

func (d *desk) node(t *testing.T) *v1alpha1.MeshNode {
	t.Helper()
	mn := &v1alpha1.MeshNode{}
	if err := d.kube.Get(t.Context(), client.ObjectKey{Name: "n1"}, mn); err != nil {
		t.Fatal(err)
	}
	return mn
}

func TestReportsAreWrittenWhenSomebodyNeedsThem(t *testing.T) {
	d := newDesk(t)
	req := &relayv1.ReportRequest{Node: "n1", WireguardPublicKey: "key", WireguardPort: 51820, Encryption: "userspace WireGuard"}
	step := func(what string, after time.Duration, change func(), wantWrites int) {
		t.Helper()
		d.now = d.now.Add(after)
		change()
		was := d.writes
		if err := d.Report(t.Context(), req); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := d.writes - was; got != wantWrites {
			t.Errorf("%s: %d writes, want %d", what, got, wantWrites)
		}
	}
	step("first", 0, func() {}, 1)
	mn := d.node(t)
	if mn.Status.WireGuardPublicKey != "key" || len(mn.OwnerReferences) != 1 || mn.OwnerReferences[0].UID != "u1" {
		t.Errorf("MeshNode: %+v", mn)
	}
	step("same again", time.Second, func() {}, 0)
	step("drops counted", time.Second, func() { req.Drops = []*relayv1.Counter{{Reason: "policy", Packets: 5}} }, 0)
	step("drops after a while", lazy, func() {}, 1)
	step("a new key", time.Millisecond, func() { req.WireguardPublicKey = "other" }, 1)
	step("back to the old key, before the cache can know", time.Millisecond, func() { req.WireguardPublicKey = "key" }, 1)
	if got := d.node(t).Status.WireGuardPublicKey; got != "key" {
		t.Errorf("key %q", got)
	}
	step("a policy realized", time.Millisecond, func() { req.Policies = []*relayv1.PolicyRealization{{Key: "k", Revision: "1"}} }, 1)
	step("policies in another order", time.Millisecond, func() {
		req.Policies = []*relayv1.PolicyRealization{{Key: "z"}, {Key: "k", Revision: "1"}}
	}, 1)
	step("the same in another order", time.Millisecond, func() {
		req.Policies = []*relayv1.PolicyRealization{{Key: "k", Revision: "1"}, {Key: "z"}}
	}, 0)
	step("a policy with a warning", time.Millisecond, func() { req.Policies[1].Warning = "label x" }, 1)
	if got := d.node(t).Status.Policies[1]; got.Key != "z" || got.Warning != "label x" {
		t.Errorf("policy %+v", got)
	}
	step("tunnels", time.Millisecond, func() { req.Tunnels = []*relayv1.Tunnels{{Cluster: "w", Wanted: 2, Ready: 2}} }, 1)
	step("a handshake", time.Millisecond, func() { req.Tunnels[0].Connected, req.Tunnels[0].LatestHandshakeUnix = 1, 77 }, 0)
	step("a tunnel down", time.Millisecond, func() {
		req.Tunnels[0].Ready, req.Tunnels[0].Broken = 1, []*relayv1.BrokenTunnel{{Node: "n", LastHandshakeUnix: 5}}
	}, 1)
	step("its last handshake", time.Millisecond, func() { req.Tunnels[0].Broken[0].LastHandshakeUnix = 6 }, 0)
	step("another one instead", time.Millisecond, func() { req.Tunnels[0].Broken[0].Node = "m" }, 1)
	step("applied more of the stream", time.Millisecond, func() { req.Applied = &relayv1.ResumePoint{Epoch: "e", Revision: 9} }, 0)
	step("alive", alive, func() {}, 1)
	if got := d.node(t).Status.AppliedRevision; got != "e/9" {
		t.Errorf("applied %q", got)
	}
}

// An agent that comes back reports before it has opened its device. Were the key taken from the node's record, every
// other node would drop its tunnel to this one.
func TestAStartingAgentKeepsItsNodesKey(t *testing.T) {
	d := newDesk(t)
	whole := &relayv1.ReportRequest{Node: "n1", WireguardPublicKey: "key", WireguardPort: 51871, PodsInPodCidrs: true, AgentVersion: "1"}
	for _, req := range []*relayv1.ReportRequest{whole, {Node: "n1", AgentVersion: "2"}} {
		if err := d.Report(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	s := d.node(t).Status
	if s.WireGuardPublicKey != "key" || s.WireGuardPort != 51871 || !s.PodsInPodCIDRs {
		t.Errorf("key %q, port %d, pods in pod CIDRs %t", s.WireGuardPublicKey, s.WireGuardPort, s.PodsInPodCIDRs)
	}
	if s.AgentVersion != "2" {
		t.Errorf("agent version %q: the report was not written", s.AgentVersion)
	}
}

func TestReportOfAnUnknownNode(t *testing.T) {
	d := newDesk(t)
	if err := d.Report(t.Context(), &relayv1.ReportRequest{Node: "n2"}); err == nil {
		t.Error("a report of a node that does not exist was taken")
	}
}

// An agent from before there were sums lists every peer: the same is known of it, as far as it says.
func TestPeersOfOlderAgentsAreSummedUp(t *testing.T) {
	req := &relayv1.ReportRequest{Peers: []*relayv1.PeerHealth{
		{Cluster: "west", Node: "b", Ready: true, LastHandshakeUnix: 7}, {Cluster: "east", Node: "x"}, {Cluster: "west", Node: "a", LastHandshakeUnix: 5},
	}}
	for n := range 2 * maxBroken {
		req.Peers = append(req.Peers, &relayv1.PeerHealth{Cluster: "east", Node: fmt.Sprintf("y%02d", n)})
	}
	got := tunnelsOf(req)
	want := []v1alpha1.NodeTunnels{
		{Cluster: "east", Wanted: 2*maxBroken + 1, Broken: []v1alpha1.BrokenTunnel{{Node: "x"}}},
		{Cluster: "west", Wanted: 2, Ready: 1, LatestHandshakeTime: unix(7), Broken: []v1alpha1.BrokenTunnel{{Node: "a", LastHandshakeTime: unix(5)}}},
	}
	for n := range maxBroken - 1 {
		want[0].Broken = append(want[0].Broken, v1alpha1.BrokenTunnel{Node: fmt.Sprintf("y%02d", n)})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What an agent says is bounded, and never better than it can be.
func TestTunnelsAreBounded(t *testing.T) {
	req := &relayv1.ReportRequest{Tunnels: []*relayv1.Tunnels{{Cluster: "a", Wanted: 2, Ready: 5, Connected: 9}}}
	for n := range maxClusters {
		req.Tunnels = append(req.Tunnels, &relayv1.Tunnels{Cluster: fmt.Sprintf("b%03d", n), Wanted: 1})
	}
	for range 2 * maxBroken {
		req.Tunnels[0].Broken = append(req.Tunnels[0].Broken, &relayv1.BrokenTunnel{Node: "n"})
	}
	got := tunnelsOf(req)
	if len(got) != maxClusters || got[0].Ready != 2 || got[0].Connected != 2 || len(got[0].Broken) != maxBroken {
		t.Errorf("%d clusters, first %+v", len(got), got[0])
	}
}
