// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/internal/fixture"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func TestHealthyMeshIsHealthy(t *testing.T) {
	r := evaluate.Evaluate([]evaluate.Snapshot{fixture.Healthy("east"), fixture.Healthy("west")})
	for _, c := range r.Clusters {
		for _, k := range c.Checks {
			if k.State != evaluate.OK || k.Hint != "" || len(k.Details) > 0 {
				t.Errorf("%s: %s is %s: %v %s", c.Context, k.ID, k.State, k.Details, k.Hint)
			}
		}
	}
	if r.ExitCode() != evaluate.ExitHealthy {
		t.Errorf("exit code %d", r.ExitCode())
	}
}

// Each fault must be seen by one check, and by no other: a fault that shows up everywhere says nothing.
func TestEachFaultIsSeenByItsCheck(t *testing.T) {
	ago := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: fixture.Now.Add(-d)} }
	for _, c := range []struct {
		name  string
		fault func(*evaluate.Snapshot)
		check string
		state evaluate.State
		says  string
		also  []string // checks that the fault touches by its nature
	}{
		{"no answer", func(s *evaluate.Snapshot) { s.Unreachable = "connection refused" }, "fl-api-reachable", evaluate.Failing, "connection refused", nil},
		{"not installed", func(s *evaluate.Snapshot) { s.NotInstalled = true }, "fl-installed", evaluate.Failing, "fairlead.dev", nil},
		{"a right is missing", func(s *evaluate.Snapshot) { s.Unread = []string{"Nodes: forbidden"} }, "fl-api-readable", evaluate.Warning, "Nodes: forbidden", nil},
		{"no membership", func(s *evaluate.Snapshot) { s.Mesh = nil }, "fl-mesh-configured", evaluate.Failing, "ClusterMesh", nil},
		{"operator down", func(s *evaluate.Snapshot) { s.Operator.Ready = 0 }, "fl-components-running", evaluate.Failing, "operator: 0 of 1", nil},
		{"operator scaled to zero", func(s *evaluate.Snapshot) { s.Operator = evaluate.Workload{Found: true} }, "fl-components-running", evaluate.Failing, "scaled to zero", nil},
		{"agents missing", func(s *evaluate.Snapshot) { s.Agent = evaluate.Workload{} }, "fl-components-running", evaluate.Warning, "agents: not found", nil},
		{"store down", func(s *evaluate.Snapshot) {
			s.Mesh.Status.Conditions = fixture.Conditions("StoreReachable", "False", "Unreachable", "dial tcp: timeout", "Ready", "False", "StoreUnreachable", "")
		}, "fl-store-reachable", evaluate.Failing, "dial tcp: timeout", nil},
		{"operator never looked", func(s *evaluate.Snapshot) { s.Mesh.Status = v1alpha1.ClusterMeshStatus{ObservedGeneration: -1} }, "fl-store-reachable", evaluate.Failing, "observed -1", nil},
		{"store without isolation", func(s *evaluate.Snapshot) {
			s.Mesh.Status.Conditions = fixture.Conditions("StoreReachable", "True", "NotIsolated", "connected; but", "Ready", "True", "Ready", "")
		}, "fl-store-reachable", evaluate.Warning, "connected; but", nil},
		{"not ready for another reason", func(s *evaluate.Snapshot) {
			s.Mesh.Status.Conditions = fixture.Conditions("StoreReachable", "True", "Connected", "", "Ready", "False", "Publishing", "7 changes are still to be published")
		}, "fl-mesh-ready", evaluate.Failing, "7 changes", nil},
		{"a cluster is kept out", func(s *evaluate.Snapshot) {
			s.Mesh.Status.Conditions = append(s.Mesh.Status.Conditions, fixture.Conditions("MembersAccepted", "False", "ClusterRefused", "south: cluster ID 2 is taken")...)
		}, "fl-clusters-ready", evaluate.Warning, "south: cluster ID 2", nil},
		{"mesh suspended", func(s *evaluate.Snapshot) { s.Mesh.Spec.Suspend = true }, "fl-store-reachable", evaluate.Warning, "", nil},
		{"peer refused", func(s *evaluate.Snapshot) {
			s.Clusters[0].Status.Conditions = fixture.Conditions("Accepted", "False", "DuplicateID", "cluster ID 2 is taken by south", "Ready", "False", "NotAccepted", "")
		}, "fl-clusters-ready", evaluate.Failing, "taken by south", nil},
		{"peer without a word", func(s *evaluate.Snapshot) { s.Clusters[0].Status = v1alpha1.MeshClusterStatus{} }, "fl-clusters-ready", evaluate.Failing, "said nothing", nil},
		{"peer's records refused", func(s *evaluate.Snapshot) {
			s.Clusters[0].Status.RejectedRecords = 1
			s.Clusters[0].Status.Rejections = []v1alpha1.Rejection{{Key: "west/endpoints/a/b", Reason: "10.9.0.1 lies in none of its podCIDRs"}}
		}, "fl-clusters-ready", evaluate.Warning, "west/endpoints/a/b: 10.9.0.1", nil},
		{"alone", func(s *evaluate.Snapshot) { s.Clusters = nil }, "fl-clusters-ready", evaluate.Warning, "no other cluster", nil},
		{"node without agent", func(s *evaluate.Snapshot) { s.KubeNodes = append(s.KubeNodes, "east-3") }, "fl-nodes-ready", evaluate.Failing, "east-3: its agent has never reported", nil},
		{"silent agent", func(s *evaluate.Snapshot) { s.Nodes[0].Status.LastReportTime = ago(10 * time.Minute) }, "fl-nodes-ready", evaluate.Failing, "silent for 10m0s", []string{"fl-nodes-synced"}},
		{"pod without datapath", func(s *evaluate.Snapshot) { s.Nodes[0].Status.EndpointsFailing = 2 }, "fl-nodes-ready", evaluate.Failing, "2 pods without", nil},
		{"node has a problem", func(s *evaluate.Snapshot) {
			s.Nodes[1].Status.Problems = []v1alpha1.NodeProblem{{Code: "no-tcx", Message: "kernel 6.1 has no TCX; clsact is used"}}
		}, "fl-nodes-ready", evaluate.Warning, "no-tcx", nil},
		{"not synced", func(s *evaluate.Snapshot) { s.Nodes[0].Status.AppliedRevision = "" }, "fl-nodes-synced", evaluate.Failing, "NOT SYNCED", nil},
		{"behind", func(s *evaluate.Snapshot) { s.Nodes[0].Status.AppliedRevision = "5f1c0e7a/200" }, "fl-nodes-synced", evaluate.Warning, "BEHIND by 18", nil},
		{"tunnel down", func(s *evaluate.Snapshot) {
			breakTunnel(&s.Nodes[0].Status.Tunnels[1], v1alpha1.BrokenTunnel{Node: "west-1"})
		}, "fl-tunnels-up", evaluate.Failing, "east-1 → west/west-1: no handshake yet", nil},
		{"more tunnels down than are named", func(s *evaluate.Snapshot) {
			s.Nodes[0].Status.Tunnels[1].Wanted += 7
		}, "fl-tunnels-up", evaluate.Failing, "east-1 → west: 7 more tunnels are not up", nil},
		{"services missing", func(s *evaluate.Snapshot) { s.Nodes[0].Status.Services = 3 }, "fl-services-programmed", evaluate.Warning, "3 of 14", nil},
		{"annotation misspelled", func(s *evaluate.Snapshot) { s.Services[0].Annotations["fairlead.dev/afinity"] = "local" }, "fl-services-programmed", evaluate.Warning, "shop/api: annotation fairlead.dev/afinity is unknown", nil},
		{"source broken", func(s *evaluate.Snapshot) {
			s.Sources[0].Status.Conditions = fixture.Conditions("Ready", "False", "BuildFailed", "policies/a.yaml: line 3: mapping values")
		}, "fl-policy-sources-ready", evaluate.Failing, "policies/a.yaml", nil},
		{"source not on all nodes", func(s *evaluate.Snapshot) {
			s.Sources[0].Status.Nodes = v1alpha1.PolicyNodes{Total: 2, Realized: 1, Failing: []string{"east-2"}}
		}, "fl-policy-sources-ready", evaluate.Failing, "not on east-2", nil},
		{"policy not on all nodes", func(s *evaluate.Snapshot) {
			s.Policies[0].Status.Nodes = v1alpha1.PolicyNodes{Total: 2, Realized: 1, Failing: []string{"east-2"}}
		}, "fl-policies-realized", evaluate.Failing, "not on east-2", nil},
		{"policy not understood", func(s *evaluate.Snapshot) {
			s.Policies[0].Status.Nodes = v1alpha1.PolicyNodes{Total: 2, Failing: []string{"east-1", "east-2"}}
			s.Nodes[0].Status.Policies = []v1alpha1.NodePolicy{{Key: "east/policies/MeshNetworkPolicy/" + s.Policies[0].Namespace + "/" + s.Policies[0].Name, Error: "spec.mode: no"}}
		}, "fl-policies-realized", evaluate.Failing, "  east-1: spec.mode: no", nil},
		{"policy that selects by a label that is left out", func(s *evaluate.Snapshot) {
			s.Nodes[0].Status.Policies = []v1alpha1.NodePolicy{{Key: "east/policies/MeshNetworkPolicy/" + s.Policies[0].Namespace + "/" + s.Policies[0].Name, Warning: "spec.podSelector: label x"}}
		}, "fl-policies-realized", evaluate.Warning, ": spec.podSelector: label x", nil},
		{"NetworkPolicy that selects by a label that is left out", func(s *evaluate.Snapshot) {
			for i := range s.Nodes {
				s.Nodes[i].Status.Policies = []v1alpha1.NodePolicy{{Key: "east/policies/NetworkPolicy/shop/db", Warning: "spec.podSelector: label x"}}
			}
		}, "fl-policies-realized", evaluate.Warning, "NetworkPolicy shop/db: spec.podSelector: label x", nil},
		{"NetworkPolicy that is not understood", func(s *evaluate.Snapshot) {
			s.Nodes[1].Status.Policies = []v1alpha1.NodePolicy{{Key: "east/policies/NetworkPolicy/shop/db", Error: "spec.podSelector: no"}}
		}, "fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/db: east-2: spec.podSelector: no", nil},
		{"policy edited, and nobody looked", func(s *evaluate.Snapshot) { s.Policies[0].Generation++ },
			"fl-policies-realized", evaluate.Failing, "its newest change has not been looked at yet", nil},
		{"policy made anew, and nobody looked", func(s *evaluate.Snapshot) { s.Policies[0].Status = v1alpha1.MeshPolicyStatus{ObservedGeneration: -1} },
			"fl-policies-realized", evaluate.Failing, "its newest change has not been looked at yet", nil},
		{"policy edited, and no agent has it", func(s *evaluate.Snapshot) {
			s.Policies[0].Status.Nodes.Realized = 0
			s.Policies[0].Status.Conditions = fixture.Conditions("Ready", "False", "Progressing", "in force on 0 of 2 nodes")
		}, "fl-policies-realized", evaluate.Failing, "on 0 of 2 nodes", nil},
		{"an agent that lags behind the other", func(s *evaluate.Snapshot) { networkPolicy(s, 2, 2, 1) },
			"fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/web: as it is written now on 1 of 2 nodes", nil},
		{"a NetworkPolicy that was edited, and no agent has it", func(s *evaluate.Snapshot) { networkPolicy(s, 2, 1, 1) },
			"fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/web: as it is written now on 0 of 2 nodes", nil},
		{"a NetworkPolicy that an agent can't enforce", func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			s.Nodes[1].Status.Policies[0].Error = "map is full"
		}, "fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/web: as it is written now on 1 of 2 nodes", nil},
		{"a ClusterNetworkPolicy that no agent has", func(s *evaluate.Snapshot) {
			s.OtherPolicies = append(s.OtherPolicies, &npav1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor", UID: "u2", Generation: 1}})
		}, "fl-policies-realized", evaluate.Failing, "ClusterNetworkPolicy floor: as it is written now on 0 of 2 nodes", nil},
		{"a ClusterNetworkPolicy with a field that isn't enforced", func(s *evaluate.Snapshot) {
			clusterNetworkPolicy(s)
			s.Nodes[1].Status.Policies[0].Warning = "spec.egress[0].to[0]: domainNames can't be enforced yet"
		}, "fl-policies-realized", evaluate.Warning, "ClusterNetworkPolicy floor: spec.egress[0].to[0]: domainNames", nil},
		{"a policy that is gone and still enforced", func(s *evaluate.Snapshot) {
			networkPolicy(s, 1, 1, 1)
			s.OtherPolicies = nil
		}, "fl-policies-realized", evaluate.Failing, "NetworkPolicy/shop/web: is gone, and still enforced by east-1, east-2", nil},
		{"a namespace in Audit", func(s *evaluate.Snapshot) { s.Modes = map[string]record.NamespaceMode{"shop": {Audit: true}} },
			"fl-policies-enforced", evaluate.Warning, "namespace shop has its own policies audited", nil},
		{"a mode that isn't understood", func(s *evaluate.Snapshot) { s.Modes = map[string]record.NamespaceMode{"shop": {Problem: "a typo"}} },
			"fl-policies-enforced", evaluate.Warning, "a typo", nil},
		{"a cluster in Audit", func(s *evaluate.Snapshot) { s.Mesh.Spec.Policy.Mode = v1alpha1.PolicyAudit },
			"fl-policies-enforced", evaluate.Warning, "all policies of this cluster audited", nil},
		{"a policy that should be audited, and isn't yet", func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			s.Modes = map[string]record.NamespaceMode{"shop": {Audit: true}}
		}, "fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/web: as it is written now on 0 of 2 nodes", []string{"fl-policies-enforced"}},
		{"a policy that is still audited", func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			audit(s)
		}, "fl-policies-realized", evaluate.Failing, "NetworkPolicy shop/web: as it is written now on 0 of 2 nodes", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := fixture.Healthy("east")
			c.fault(&s)
			r := evaluate.Evaluate([]evaluate.Snapshot{s})
			found := false
			for _, k := range r.Clusters[0].Checks {
				if k.State == evaluate.OK || slices.Contains(c.also, k.ID) {
					continue
				}
				if k.ID != c.check {
					t.Errorf("%s is %s too: %v", k.ID, k.State, k.Details)
					continue
				}
				found = true
				if k.State != c.state {
					t.Errorf("%s, want %s", k.State, c.state)
				}
				if said := k.Summary + "\n" + strings.Join(k.Details, "\n"); !strings.Contains(said, c.says) {
					t.Errorf("says %q, want %q", said, c.says)
				}
				if k.Hint == "" || !strings.HasSuffix(k.HintURL, "#"+k.ID) {
					t.Errorf("tells nobody what to do: hint %q, URL %q", k.Hint, k.HintURL)
				}
			}
			if !found {
				t.Errorf("%s did not see it", c.check)
			}
		})
	}
}

// networkPolicy adds a NetworkPolicy at a generation, of which the nodes enforce others.
func networkPolicy(s *evaluate.Snapshot, generation int64, enforced ...int64) {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u1", Generation: generation}}
	s.OtherPolicies = append(s.OtherPolicies, p)
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		panic(err)
	}
	for i, g := range enforced {
		s.Nodes[i].Status.Policies = []v1alpha1.NodePolicy{{
			Key: "east/policies/NetworkPolicy/shop/web", Content: (&record.Policy{UID: "u1", Generation: g, Spec: spec}).Content(),
		}}
	}
}

// audit has what networkPolicy added reported as audited.
func audit(s *evaluate.Snapshot) {
	p := s.OtherPolicies[0]
	spec, err := json.Marshal(networkingv1.NetworkPolicySpec{})
	if err != nil {
		panic(err)
	}
	content := (&record.Policy{UID: string(p.GetUID()), Generation: p.GetGeneration(), Spec: spec, Mode: record.Mode{ByCluster: true}}).Content()
	for i := range s.Nodes {
		s.Nodes[i].Status.Policies[0].Content = content
	}
}

// clusterNetworkPolicy adds one that all nodes enforce.
func clusterNetworkPolicy(s *evaluate.Snapshot) {
	p := &npav1alpha2.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "floor", UID: "u2", Generation: 1}}
	s.OtherPolicies = append(s.OtherPolicies, p)
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		panic(err)
	}
	for i := range s.Nodes {
		s.Nodes[i].Status.Policies = []v1alpha1.NodePolicy{{
			Key: "east/policies/ClusterNetworkPolicy/-/floor", Content: (&record.Policy{UID: "u2", Generation: 1, Spec: spec}).Content(),
		}}
	}
}

func TestEnforcedPoliciesAreHealthy(t *testing.T) {
	for name, change := range map[string]func(*evaluate.Snapshot){
		"in force":               func(s *evaluate.Snapshot) { networkPolicy(s, 2, 2, 2) },
		"a ClusterNetworkPolicy": clusterNetworkPolicy,
		"in force or audited, where namespaces can't be read": func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			audit(s)
			s.ModesUnknown = true
		},
		"an agent that doesn't say what it enforces": func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			s.Nodes[1].Status.Policies[0].Content = ""
		},
		"a policy of a cluster that this one was before": func(s *evaluate.Snapshot) {
			networkPolicy(s, 2, 2, 2)
			s.Nodes[0].Status.Policies = append(s.Nodes[0].Status.Policies, v1alpha1.NodePolicy{Key: "north/policies/NetworkPolicy/shop/old", Content: "x"})
		},
	} {
		s := fixture.Healthy("east")
		change(&s)
		for _, k := range evaluate.Evaluate([]evaluate.Snapshot{s}).Clusters[0].Checks {
			if k.State != evaluate.OK {
				t.Errorf("%s: %s is %s: %v", name, k.ID, k.State, k.Details)
			}
		}
	}
}

func TestExitCodes(t *testing.T) {
	unreachable, unhealthy := fixture.Healthy("a"), fixture.Healthy("b")
	unreachable.Unreachable = "timeout"
	unhealthy.Operator.Ready = 0
	for _, c := range []struct {
		snapshots []evaluate.Snapshot
		want      int
	}{
		{[]evaluate.Snapshot{fixture.Healthy("c")}, 0},
		{[]evaluate.Snapshot{fixture.Healthy("c"), unhealthy}, 1},
		{[]evaluate.Snapshot{unhealthy, unreachable}, 2},
	} {
		if got := evaluate.Evaluate(c.snapshots).ExitCode(); got != c.want {
			t.Errorf("exit code %d, want %d", got, c.want)
		}
	}
}

func TestVersionsCountNodes(t *testing.T) {
	s := fixture.Healthy("east")
	s.Nodes[1].Status.AgentVersion = "v0.2.0"
	s.Nodes = append(s.Nodes, s.Nodes[0])
	got := evaluate.VersionsOf([]evaluate.Snapshot{s})[0]
	want := []evaluate.AgentVersion{{Version: "v0.1.0", Nodes: 2}, {Version: "v0.2.0", Nodes: 1}}
	if !slices.Equal(got.Agents, want) || got.Operator != "v0.1.0" {
		t.Errorf("got %+v, want agents %+v of operator v0.1.0", got, want)
	}
}

func breakTunnel(t *v1alpha1.NodeTunnels, b v1alpha1.BrokenTunnel) {
	t.Ready--
	t.Broken = append(t.Broken, b)
}
