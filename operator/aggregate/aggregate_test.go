// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package aggregate

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

var (
	nodeNames   = list("n", 14) // more than a status names
	policyKeys  = list("east/policies/MeshNetworkPolicy/shop/p", 6)
	revisions   = []string{"", "main@sha1:1", "main@sha1:2"}
	contents    = []string{"", "x", "y"} // agents that don't say have none
	sourceNames = []SourceName{{"shop", "a"}, {"shop", "b"}}
	clusters    = []string{"west", "north"}
)

func list(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return out
}

// shown is what a writer has written who looks only at what it was told.
type shown struct {
	policies map[string]Policy
	sources  map[SourceName]v1alpha1.PolicyNodes
}

// machine applies the same changes to an Index and to a world.
type machine struct {
	x *Index
	w *world
	shown
}

func newMachine() *machine {
	return &machine{New(), newWorld(), shown{map[string]Policy{}, map[SourceName]v1alpha1.PolicyNodes{}}}
}

func (m *machine) node(t *rapid.T) {
	name := rapid.SampledFrom(nodeNames).Draw(t, "node")
	exists := rapid.Bool().Draw(t, "exists")
	if exists {
		m.w.nodes[name] = true
	} else {
		delete(m.w.nodes, name)
	}
	m.x.SetNode(name, exists)
}

func (m *machine) agent(t *rapid.T) {
	name := rapid.SampledFrom(nodeNames).Draw(t, "node")
	if rapid.IntRange(0, 9).Draw(t, "gone") == 0 {
		delete(m.w.agents, name)
		m.x.SetAgent(name, nil)
		return
	}
	a := &v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.MeshNodeStatus{
		Policies: rapid.SliceOfN(rapid.Custom(report), 0, 8).Draw(t, "policies"), // in any order, some twice
		Tunnels:  rapid.SliceOfNDistinct(rapid.Custom(nodeTunnels), 0, 2, func(n v1alpha1.NodeTunnels) string { return n.Cluster }).Draw(t, "tunnels"),
	}}
	m.w.agents[name] = a
	m.x.SetAgent(name, a)
}

func report(t *rapid.T) v1alpha1.NodePolicy {
	p := v1alpha1.NodePolicy{
		Key: rapid.SampledFrom(policyKeys).Draw(t, "key"), Revision: rapid.SampledFrom(revisions).Draw(t, "revision"),
		Content: rapid.SampledFrom(contents).Draw(t, "content"),
	}
	if rapid.IntRange(0, 4).Draw(t, "fails") == 0 {
		p.Error = rapid.SampledFrom([]string{"map is full", "no such kind"}).Draw(t, "error")
	}
	if rapid.IntRange(0, 4).Draw(t, "warns") == 0 {
		p.Warning = rapid.SampledFrom([]string{"label a", "label b"}).Draw(t, "warning")
	}
	return p
}

func nodeTunnels(t *rapid.T) v1alpha1.NodeTunnels {
	wanted := rapid.Int32Range(0, 6).Draw(t, "wanted")
	return v1alpha1.NodeTunnels{Cluster: rapid.SampledFrom(clusters).Draw(t, "cluster"), Wanted: wanted, Ready: rapid.Int32Range(0, wanted).Draw(t, "ready")}
}

func (m *machine) policy(t *rapid.T) {
	key := rapid.SampledFrom(policyKeys).Draw(t, "key")
	if rapid.IntRange(0, 4).Draw(t, "withdrawn") == 0 {
		delete(m.w.policies, key)
		delete(m.policies, key)
		m.x.RemovePolicy(key)
		return
	}
	m.w.policies[key] = Wanted{
		Version:    Version{rapid.SampledFrom(revisions).Draw(t, "revision"), rapid.SampledFrom(contents[1:]).Draw(t, "content")},
		Generation: rapid.Int64Range(1, 2).Draw(t, "generation"),
		Mode:       record.Mode{ByCluster: rapid.Bool().Draw(t, "audited")},
	}
	m.x.SetPolicy(key, m.w.policies[key])
}

func (m *machine) source(t *rapid.T) {
	name := rapid.SampledFrom(sourceNames).Draw(t, "source")
	if rapid.IntRange(0, 4).Draw(t, "gone") == 0 {
		delete(m.w.sources, name)
		delete(m.sources, name)
		m.x.RemoveSource(name)
		return
	}
	m.w.sources[name] = inventory{
		rapid.SampledFrom(revisions).Draw(t, "revision"), rapid.SliceOfN(rapid.SampledFrom(policyKeys), 0, 5).Draw(t, "keys"),
	}
	m.x.SetSource(name, m.w.sources[name].revision, m.w.sources[name].keys)
}

// restart begins with nothing but what there is, and a writer who has yet to learn everything.
func (m *machine) restart(*rapid.T) {
	m.x, m.shown = New(), newMachine().shown
	m.w.feed(m.x)
}

func (m *machine) write(*rapid.T) {
	policies, sources := m.x.TakeDirty()
	for _, key := range policies {
		m.policies[key] = m.x.Policy(key)
	}
	for _, name := range sources {
		m.sources[name] = m.x.Source(name)
	}
}

// check holds every sum against the oracle's, and what a writer would have written as well.
func (m *machine) check(t *rapid.T) {
	for _, key := range policyKeys {
		if diff := cmp.Diff(m.w.policy(key), m.x.Policy(key)); diff != "" {
			t.Fatalf("policy %s (-want +got):\n%s", key, diff)
		}
	}
	for name := range m.w.sources {
		if diff := cmp.Diff(m.w.source(name), m.x.Source(name)); diff != "" {
			t.Fatalf("source %v (-want +got):\n%s", name, diff)
		}
	}
	for _, cluster := range clusters {
		for _, theirs := range []int{0, 2, 5} {
			if diff := cmp.Diff(m.w.tunnels(cluster, theirs), m.x.Tunnels(cluster, theirs)); diff != "" {
				t.Fatalf("tunnels to %d nodes of %s (-want +got):\n%s", theirs, cluster, diff)
			}
		}
	}
	for name, n := range m.x.Nodes() {
		if n.Exists != m.w.nodes[name] || n.Agent != m.w.agents[name] {
			t.Fatalf("node %s is known as %+v", name, n)
		}
	}
	if want := len(union(m.w.nodes, m.w.agents)); len(m.x.nodes) != want {
		t.Fatalf("%d nodes are known, want %d", len(m.x.nodes), want)
	}
}

func union[A, B any](a map[string]A, b map[string]B) map[string]bool {
	out := map[string]bool{}
	for k := range a {
		out[k] = true
	}
	for k := range b {
		out[k] = true
	}
	return out
}

// checkShown holds what a writer wrote against the oracle.
func (m *machine) checkShown(t *rapid.T) {
	for key := range m.w.policies {
		if diff := cmp.Diff(m.w.policy(key), m.policies[key]); diff != "" {
			t.Fatalf("policy %s is shown otherwise than it is (-want +got):\n%s", key, diff)
		}
	}
	for name := range m.w.sources {
		if diff := cmp.Diff(m.w.source(name), m.sources[name]); diff != "" {
			t.Fatalf("source %v is shown otherwise than it is (-want +got):\n%s", name, diff)
		}
	}
}

func TestIncrementalIsWhatTheOracleSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		t.Repeat(map[string]func(*rapid.T){
			"node": m.node, "agent": m.agent, "agent again": m.agent, "policy": m.policy, "source": m.source,
			"write": func(t *rapid.T) { m.write(t); m.checkShown(t) }, "restart": m.restart, "": m.check,
		})
	})
}

// Whatever was there, once it is all gone nothing is kept of it.
func TestNothingIsKeptOfWhatIsGone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMachine()
		t.Repeat(map[string]func(*rapid.T){"node": m.node, "agent": m.agent, "policy": m.policy, "source": m.source})
		for _, name := range nodeNames {
			m.x.SetAgent(name, nil)
			m.x.SetNode(name, false)
		}
		for _, key := range policyKeys {
			m.x.RemovePolicy(key)
		}
		for _, name := range sourceNames {
			m.x.RemoveSource(name)
		}
		if n := len(m.x.nodes) + len(m.x.policies) + len(m.x.sources) + len(m.x.tunnels) + m.x.existing + m.x.agents + len(m.x.dirtyPolicies) + len(m.x.dirtySources); n != 0 {
			t.Fatalf("left over: %+v", m.x)
		}
	})
}

func TestOnlyWhatChangedIsDirty(t *testing.T) {
	x := New()
	x.SetNode("n1", true)
	for _, key := range policyKeys {
		x.SetPolicy(key, wanted("1", "x"))
	}
	x.SetSource(sourceNames[0], "1", policyKeys[:1])
	x.SetSource(sourceNames[1], "1", policyKeys[1:2])
	x.SetAgent("n1", &v1alpha1.MeshNode{Status: v1alpha1.MeshNodeStatus{Policies: []v1alpha1.NodePolicy{{Key: policyKeys[0]}, {Key: policyKeys[1]}}}})
	x.TakeDirty()

	step := func(what string, change func(), wantPolicies []string, wantSources []SourceName) {
		t.Helper()
		change()
		policies, sources := x.TakeDirty()
		slices.Sort(policies)
		if diff := cmp.Diff(wantPolicies, policies) + cmp.Diff(wantSources, sources); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	reported := func(policies ...v1alpha1.NodePolicy) func() {
		return func() { x.SetAgent("n1", &v1alpha1.MeshNode{Status: v1alpha1.MeshNodeStatus{Policies: policies}}) }
	}
	first, second := v1alpha1.NodePolicy{Key: policyKeys[0]}, v1alpha1.NodePolicy{Key: policyKeys[1], Revision: "1", Content: "x"}
	step("the same report", reported(first, v1alpha1.NodePolicy{Key: policyKeys[1]}), nil, nil)
	step("one policy realized", reported(first, second), policyKeys[1:2], sourceNames[1:])
	step("one policy gone", reported(second), policyKeys[:1], sourceNames[:1])
	step("the same policy", func() { x.SetPolicy(policyKeys[0], wanted("1", "x")) }, nil, nil)
	step("a new version", func() { x.SetPolicy(policyKeys[2], wanted("1", "y")) }, policyKeys[2:3], nil)
	step("the same inventory", func() { x.SetSource(sourceNames[0], "1", policyKeys[:1]) }, nil, nil)
	step("a new commit", func() { x.SetSource(sourceNames[0], "2", policyKeys[:1]) }, nil, sourceNames[:1])
	step("the same node", func() { x.SetNode("n1", true) }, nil, nil)
	step("a policy of no source that nobody exports", reported(second, v1alpha1.NodePolicy{Key: "west/policies/x"}), nil, nil)
}

func wanted(revision, content string) Wanted { return Wanted{Version: Version{revision, content}} }

func TestVersions(t *testing.T) {
	for _, tt := range []struct {
		what           string
		reported, want Version
		is             bool
	}{
		{"as wanted", Version{"r", "x"}, Version{"r", "x"}, true},
		{"another content at the same revision", Version{"r", "x"}, Version{"r", "y"}, false},
		{"the same content at another revision", Version{"q", "x"}, Version{"r", "x"}, false},
		{"an agent that doesn't say what it enforces", Version{"r", ""}, Version{"r", "x"}, false},
		{"two that don't say", Version{"r", ""}, Version{"r", ""}, false},
	} {
		if got := tt.reported.is(tt.want); got != tt.is {
			t.Errorf("%s: %t", tt.what, got)
		}
	}
}

// A source isn't in force where one of its policies is another than what its agents were given at that very revision: somebody
// edited it by hand, and the edit, or what undid it, isn't everywhere.
func TestASourceIsInForceByContent(t *testing.T) {
	x := New()
	x.SetNode("n1", true)
	x.SetSource(sourceNames[0], "1", policyKeys[:2])
	report := func(contents ...string) {
		a := &v1alpha1.MeshNode{}
		for i, content := range contents {
			a.Status.Policies = append(a.Status.Policies, v1alpha1.NodePolicy{Key: policyKeys[i], Revision: "1", Content: content})
		}
		x.SetAgent("n1", a)
	}
	want := func(what string, realized int32) {
		t.Helper()
		_, dirty := x.TakeDirty()
		if got := x.Source(sourceNames[0]).Realized; got != realized || len(dirty) != 1 {
			t.Errorf("%s: on %d nodes, want %d; %v are to be written", what, got, realized, dirty)
		}
	}
	x.SetPolicy(policyKeys[0], wanted("1", "x"))
	x.SetPolicy(policyKeys[1], wanted("1", "y"))
	report("x", "y")
	want("as given", 1)
	x.SetPolicy(policyKeys[1], wanted("1", "edited"))
	want("an edit that the node has not yet", 0)
	report("x", "edited")
	want("the edit", 1)
	x.RemovePolicy(policyKeys[1])
	want("deleted", 0)
	x.SetPolicy(policyKeys[1], wanted("1", "made again"))
	want("made again, and the node has what was before", 0)
	report("x", "made again")
	want("made again, and on the node", 1)
	report("y", "made again")
	want("a node with another content of the first", 0)
	report("x", "made again")
	want("all again", 1)
	x.SetSource(sourceNames[0], "2", policyKeys[:2])
	want("a new commit that no record is of", 0)
}
