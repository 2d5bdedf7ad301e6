// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/aggregate"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

var now = time.Unix(1_000_000, 0)

func mesh() *v1alpha1.ClusterMesh {
	return &v1alpha1.ClusterMesh{
		ObjectMeta: metav1.ObjectMeta{Name: "mesh", Generation: 3},
		Spec:       v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}, Encryption: v1alpha1.EncryptionSpec{Mode: v1alpha1.EncryptionWireGuard}},
	}
}

func agent(name string, ago time.Duration, tunnels ...v1alpha1.NodeTunnels) *v1alpha1.MeshNode {
	at := metav1.NewTime(now.Add(-ago))
	return &v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.MeshNodeStatus{
		WireGuardPublicKey: "key", Encryption: "userspace WireGuard", LastReportTime: &at, Tunnels: tunnels,
	}}
}

// healthy is a mesh in which everything works.
func healthy() *Facts {
	claim := record.Claim{Name: "west", ID: 2}
	west := func() v1alpha1.NodeTunnels { return v1alpha1.NodeTunnels{Cluster: "west", Wanted: 2, Ready: 2} }
	return &Facts{
		Now: now, Mesh: mesh(), Nodes: []string{"n1", "n2"},
		Store: federate.Status{Isolated: true, Publish: store.PublishStatus{Reachable: true, Synced: true}, Watch: store.WatchStatus{Reachable: true}},
		Federated: federate.Overview{Remotes: map[string]federate.RemoteOverview{"west": {
			State:    store.ClusterState{Synced: true, Revision: 7, Heartbeat: now.Add(-5 * time.Second)},
			Decision: &federate.Decision{Claim: &claim},
			Records:  map[string]int32{record.KindNode: 2, record.KindEndpoint: 9, record.KindPolicy: 0},
		}}},
		Clusters: []v1alpha1.MeshCluster{{ObjectMeta: metav1.ObjectMeta{Name: "west", Generation: 1}}},
		Agents:   map[string]*v1alpha1.MeshNode{"n1": agent("n1", time.Minute, west()), "n2": agent("n2", 0, west())},
	}
}

// countTunnels sums up what the agents report.
func countTunnels(f *Facts) {
	x := aggregate.New()
	for name, a := range f.Agents {
		x.SetAgent(name, a)
	}
	f.Tunnels = map[string]v1alpha1.NodeCounts{"west": x.Tunnels("west", int(f.Federated.Remotes["west"].Records[record.KindNode]))}
}

// line writes a condition so that it can be compared.
func line(conditions []metav1.Condition, typ string) string {
	c := meta.FindStatusCondition(conditions, typ)
	if c == nil {
		return "absent"
	}
	return fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
}

func TestClusterMeshStatus(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		want   map[string]string // condition → its beginning
		ready  int32
	}{
		{"healthy", func(*Facts) {}, map[string]string{
			"Ready": "True Ready: in mesh m with 1 other clusters, 2 of 2 nodes ready", "StoreReachable": "True Connected",
			"EncryptionEnforced": "True Enforced: userspace WireGuard on 2 nodes", "Reconciling": "absent", "Stalled": "absent", "MembersAccepted": "absent",
		}, 2},
		{"suspended", func(f *Facts) { f.Mesh.Spec.Suspend = true }, map[string]string{
			"Ready": "False Suspended", "StoreReachable": "Unknown Suspended", "Stalled": "True Suspended", "Reconciling": "absent",
		}, 2},
		{"no DNS", func(f *Facts) {
			f.Store.Err = &store.OpenError{Layer: store.LayerDNS, Endpoint: "https://x", Err: errors.New("no such host"), Hint: "check it"}
		}, map[string]string{"StoreReachable": "False DNSFailed: shared etcd https://x: DNS: no such host (check it)", "Ready": "False DNSFailed", "Reconciling": "True DNSFailed"}, 2},
		{"no Secret", func(f *Facts) { f.Store.Err = errors.New("there is no Secret") }, map[string]string{"StoreReachable": "False NotConfigured: there is no Secret"}, 2},
		{"store lost", func(f *Facts) {
			f.Store.Watch = store.WatchStatus{LastError: errors.New("unavailable")}
		}, map[string]string{"StoreReachable": "False ConnectionLost: unavailable", "Ready": "False ConnectionLost"}, 2},
		{"not isolated", func(f *Facts) { f.Store.Isolated = false }, map[string]string{"StoreReachable": "True NotIsolated", "Ready": "True"}, 2},
		{"name taken", func(f *Facts) { f.Federated.Impostor = "a cluster of mesh \"n\"" }, map[string]string{"Ready": "False ClusterNameTaken: a cluster of mesh \"n\"", "Stalled": "True"}, 2},
		{"publishing", func(f *Facts) { f.Store.Publish.Synced, f.Store.Publish.Pending = false, 4 }, map[string]string{"Ready": "False Publishing: 4 changes"}, 2},
		{"a node without a tunnel", func(f *Facts) { f.Agents["n2"].Status.WireGuardPublicKey = "" }, map[string]string{
			"EncryptionEnforced": "False NodesNotEncrypting: no tunnel yet on n2", "Ready": "False NodesNotEncrypting",
		}, 2},
		{"no encryption", func(f *Facts) { f.Mesh.Spec.Encryption.Mode = v1alpha1.EncryptionNone }, map[string]string{"EncryptionEnforced": "False Disabled", "Ready": "True"}, 2},
		{"policies audited", func(f *Facts) { f.Mesh.Spec.Policy.Mode = v1alpha1.PolicyAudit }, map[string]string{"PolicyEnforced": "False Audited", "Ready": "True"}, 2},
		{"policies enforced", func(*Facts) {}, map[string]string{"PolicyEnforced": "True Enforced"}, 2},
		{"a silent agent", func(f *Facts) { f.Agents["n1"] = agent("n1", 4*time.Minute) }, map[string]string{"Ready": "False NodesNotReady: no recent report from the agents of n1"}, 1},
		{"a refused cluster", func(f *Facts) { f.Refused = map[string]string{"north": "clusterID 1 is taken"} }, map[string]string{
			"MembersAccepted": "False ClusterRefused: north: clusterID 1 is taken", "Ready": "True",
		}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := healthy()
			tt.change(f)
			setMeshStatus(f.Mesh, f, 1)
			for typ, want := range tt.want {
				if got := line(f.Mesh.Status.Conditions, typ); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", typ, got, want)
				}
			}
			if f.Mesh.Status.Nodes != (v1alpha1.NodeCounts{Total: 2, Ready: tt.ready}) || f.Mesh.Status.ObservedGeneration != 3 || f.Mesh.Status.TotalClusters != 2 {
				t.Errorf("status %+v", f.Mesh.Status)
			}
			kstatusAgrees(t, f.Mesh.Status.Conditions)
		})
	}
}

// kstatusAgrees checks what tools rely on: not ready means that either waiting helps or somebody has to act, never both.
func kstatusAgrees(t *testing.T, conditions []metav1.Condition) {
	t.Helper()
	ready := meta.IsStatusConditionTrue(conditions, "Ready")
	reconciling := meta.IsStatusConditionTrue(conditions, "Reconciling")
	stalled := meta.IsStatusConditionTrue(conditions, "Stalled")
	if ready == (reconciling || stalled) || reconciling && stalled {
		t.Errorf("Ready %t, Reconciling %t, Stalled %t", ready, reconciling, stalled)
	}
}

func TestMeshClusterStatus(t *testing.T) {
	remote := func(f *Facts, change func(*federate.RemoteOverview)) {
		r := f.Federated.Remotes["west"]
		change(&r)
		f.Federated.Remotes["west"] = r
	}
	for _, tt := range []struct {
		name   string
		change func(*Facts)
		want   map[string]string
	}{
		{"healthy", func(*Facts) {}, map[string]string{
			"Ready": "True Ready: 2 nodes, 9 endpoints, 4 of 4 tunnels up", "Accepted": "True Accepted", "ControlPlaneConnected": "True", "Synced": "True", "TunnelHealthy": "True",
		}},
		{"never seen", func(f *Facts) { remote(f, func(r *federate.RemoteOverview) { r.State = store.ClusterState{} }) }, map[string]string{
			"ControlPlaneConnected": "False NeverSeen", "Ready": "False NeverSeen", "Reconciling": "True",
		}},
		{"stale", func(f *Facts) {
			remote(f, func(r *federate.RemoteOverview) { r.State.Stale, r.State.Why = true, "no heartbeat for 61s" })
		}, map[string]string{"ControlPlaneConnected": "False Stale: no heartbeat for 61s; its records are kept", "Synced": "True", "Ready": "False Stale"}},
		{"the store is gone", func(f *Facts) { f.Store.Err = errors.New("x") }, map[string]string{"ControlPlaneConnected": "Unknown StoreUnreachable", "Synced": "True"}},
		{"conflict", func(f *Facts) {
			remote(f, func(r *federate.RemoteOverview) {
				r.Decision = &federate.Decision{Refused: errors.New("clusterID 1 is taken")}
			})
		}, map[string]string{"Accepted": "False ClaimConflict: clusterID 1 is taken", "Ready": "False ClaimConflict", "Stalled": "True"}},
		{"refused records", func(f *Facts) {
			remote(f, func(r *federate.RemoteOverview) {
				r.Rejected, r.Rejections = 2, []federate.Rejection{{Key: "west/nodes/x", Message: "Duplicate: key"}}
			})
		}, map[string]string{"Synced": "True SyncedWithRefusals: complete but for refused records, the newest: west/nodes/x: Duplicate: key", "Ready": "True Ready: 2 nodes, 9 endpoints, 4 of 4 tunnels up; 2 records refused"}},
		{"a tunnel down", func(f *Facts) { f.Agents["n1"].Status.Tunnels[0].Ready-- }, map[string]string{"TunnelHealthy": "False TunnelsDown: 3 of 4", "Ready": "False TunnelsDown"}},
		{"an agent that has not reported its peers", func(f *Facts) { f.Agents["n1"].Status.Tunnels = nil }, map[string]string{"TunnelHealthy": "False TunnelsDown: 2 of 4"}},
		{"suspended", func(f *Facts) { f.Clusters[0].Spec.Suspend = true }, map[string]string{"Synced": "False Suspended", "Ready": "False Suspended", "Stalled": "True"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := healthy()
			tt.change(f)
			countTunnels(f)
			mc := &f.Clusters[0]
			setClusterStatus(mc, f)
			for typ, want := range tt.want {
				if got := line(mc.Status.Conditions, typ); !strings.HasPrefix(got, want) {
					t.Errorf("%s is %q, want %q", typ, got, want)
				}
			}
			kstatusAgrees(t, mc.Status.Conditions)
		})
	}
}

func TestHeartbeatsAloneAreNotWritten(t *testing.T) {
	f := healthy()
	mc := &f.Clusters[0]
	setClusterStatus(mc, f)
	before := mc.DeepCopy()
	beat := func(after time.Duration) {
		r := f.Federated.Remotes["west"]
		r.State.Heartbeat = r.State.Heartbeat.Add(after)
		r.State.Revision++
		f.Federated.Remotes["west"] = r
		setClusterStatus(mc, f)
	}
	beat(15 * time.Second)
	if diff := cmp.Diff(before, mc); diff != "" {
		t.Errorf("a heartbeat changed the status:\n%s", diff)
	}
	beat(50 * time.Second)
	if mc.Status.LastHeartbeatTime.Equal(before.Status.LastHeartbeatTime) {
		t.Error("an old heartbeat stays shown")
	}
}

func TestAuditedByNamesAll(t *testing.T) {
	own := v1alpha1.MeshNetworkPolicySpec{Mode: v1alpha1.PolicyAudit}
	for _, tt := range []struct {
		object metav1.Object
		mode   record.Mode
		want   []string
	}{
		{&v1alpha1.MeshNetworkPolicy{}, record.Mode{}, nil},
		{&v1alpha1.MeshNetworkPolicy{Spec: own}, record.Mode{}, []string{"its spec.mode"}},
		{&v1alpha1.MeshNetworkPolicy{Spec: own}, record.Mode{ByNamespace: true, ByCluster: true}, []string{"its spec.mode", "its namespace", "the ClusterMesh"}},
		{&v1alpha1.ClusterMeshNetworkPolicy{Spec: v1alpha1.ClusterMeshNetworkPolicySpec{MeshNetworkPolicySpec: own}}, record.Mode{ByCluster: true}, []string{"its spec.mode", "the ClusterMesh"}},
		{&npav1alpha2.ClusterNetworkPolicy{}, record.Mode{ByCluster: true}, []string{"the ClusterMesh"}},
	} {
		if got := auditedBy(tt.object, tt.mode); !slices.Equal(got, tt.want) {
			t.Errorf("%T, %+v: %v, want %v", tt.object, tt.mode, got, tt.want)
		}
	}
}

func TestPolicyStatus(t *testing.T) {
	const key = "east/policies/MeshNetworkPolicy/shop/web"
	want := aggregate.Wanted{Version: aggregate.Version{Revision: "main@sha1:2", Content: "x"}, Generation: 4}
	object := &metav1.ObjectMeta{Generation: 4}
	on := func(x *aggregate.Index, node, revision, err string) {
		a := agent(node, 0)
		a.Status.Policies = []v1alpha1.NodePolicy{{Key: key, Revision: revision, Content: "x", Error: err}}
		x.SetAgent(node, a)
	}
	for _, tt := range []struct {
		name    string
		change  func(*aggregate.Index)
		want    string
		applied string
		nodes   v1alpha1.PolicyNodes
	}{
		{"nobody yet", func(*aggregate.Index) {}, "False Progressing: in force on 0 of 2 nodes", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2}},
		{"an old revision", func(x *aggregate.Index) { on(x, "n1", "main@sha1:1", ""); on(x, "n2", "main@sha1:2", "") }, "False Progressing: in force on 1 of 2 nodes", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2, Realized: 1}},
		{"everywhere", func(x *aggregate.Index) { on(x, "n1", "main@sha1:2", ""); on(x, "n2", "main@sha1:2", "") }, "True Ready: in force on all 2 nodes", "main@sha1:2", v1alpha1.PolicyNodes{Total: 2, Realized: 2}},
		{"failing", func(x *aggregate.Index) {
			on(x, "n1", "main@sha1:2", "map is full")
			on(x, "n2", "main@sha1:2", "")
		}, "False NodesFailing: n1: " + key + ": map is full", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2, Realized: 1, Failing: []string{"n1"}}},
		{"with a warning", func(x *aggregate.Index) {
			for _, node := range []string{"n1", "n2"} {
				a := agent(node, 0)
				a.Status.Policies = []v1alpha1.NodePolicy{{Key: key, Revision: "main@sha1:2", Content: "x", Warning: "spec.podSelector: label pod-template-hash"}}
				x.SetAgent(node, a)
			}
		}, "True Warning: in force on all 2 nodes, and not quite as written: spec.podSelector: label pod-template-hash", "main@sha1:2", v1alpha1.PolicyNodes{Total: 2, Realized: 2}},
		{"audited by its namespace", func(x *aggregate.Index) {
			audited := want
			audited.Mode.ByNamespace = true
			x.SetPolicy(key, audited)
			on(x, "n1", "main@sha1:2", "")
			on(x, "n2", "main@sha1:2", "")
		}, "True Audited: in force on all 2 nodes, audited by its namespace: what it denies passes and is reported", "main@sha1:2", v1alpha1.PolicyNodes{Total: 2, Realized: 2}},
		{"a node without an agent", func(x *aggregate.Index) { on(x, "n1", "main@sha1:2", ""); x.SetAgent("n2", nil) }, "False Progressing: in force on 1 of 2 nodes", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2, Realized: 1}},
		{"not exported", func(x *aggregate.Index) { x.RemovePolicy(key) }, "False Progressing: generation 4 is not with the agents yet", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2}},
		{"edited at the same revision, and not in every kernel yet", func(x *aggregate.Index) {
			on(x, "n1", "main@sha1:2", "")
			a := agent("n2", 0)
			a.Status.Policies = []v1alpha1.NodePolicy{{Key: key, Revision: "main@sha1:2", Content: "old"}}
			x.SetAgent("n2", a)
		}, "False Progressing: in force on 1 of 2 nodes", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2, Realized: 1}},
		{"edited, and not exported yet", func(x *aggregate.Index) {
			on(x, "n1", "main@sha1:2", "")
			on(x, "n2", "main@sha1:2", "")
			earlier := want
			earlier.Generation = 3
			x.SetPolicy(key, earlier)
		}, "False Progressing: generation 4 is not with the agents yet", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2}},
		{"corrected, while the error is of what was before", func(x *aggregate.Index) {
			on(x, "n1", "main@sha1:2", "map is full")
			earlier := want
			earlier.Generation = 3
			x.SetPolicy(key, earlier)
		}, "False Progressing: generation 4 is not with the agents yet", "main@sha1:1", v1alpha1.PolicyNodes{Total: 2, Failing: []string{"n1"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := aggregate.New()
			for _, n := range []string{"n1", "n2"} {
				x.SetNode(n, true)
				x.SetAgent(n, agent(n, 0))
			}
			x.SetPolicy(key, want)
			tt.change(x)
			st := &v1alpha1.MeshPolicyStatus{AppliedRevision: "main@sha1:1"}
			setPolicyStatus(st, object, x.Policy(key))
			if got := line(st.Conditions, "Ready"); got != tt.want {
				t.Errorf("Ready is %q, want %q", got, tt.want)
			}
			if diff := cmp.Diff(tt.nodes, st.Nodes); diff != "" || st.AppliedRevision != tt.applied || st.ObservedGeneration != 4 {
				t.Errorf("applied %s, generation %d, nodes (-want +got):\n%s", st.AppliedRevision, st.ObservedGeneration, diff)
			}
			kstatusAgrees(t, st.Conditions)
		})
	}
}
