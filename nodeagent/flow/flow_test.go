// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/flow"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func newNamer(t *testing.T) (*Namer, *table.Tables) {
	t.Helper()
	tables, err := table.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tables.Close(); err != nil {
			t.Error(err)
		}
	})
	return NewNamer(tables, "west-1", func() string { return "west" }), tables
}

func endpoint(cluster, name, addr string, id uint32) table.Change {
	return table.Change{Key: cluster + "/endpoints/default/" + name, Record: &recordv1.Record{
		Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
			Namespace: "default", Name: name, Addresses: []string{addr}, Identity: id,
		}},
	}}
}

func setRules(tables *table.Tables, rules map[uint32]table.Rule) {
	to := tables.ForPlan().Rules
	gone := tables.Rules.All()
	tables.Write(func(txn *table.Txn) {
		for id, rule := range rules {
			to.Put(txn, id, rule)
		}
	})
	for row := range gone {
		if _, keep := rules[row.Key]; !keep {
			tables.Write(func(txn *table.Txn) { to.Delete(txn, row.Key) })
		}
	}
}

func denied() bpf.Event {
	e := bpf.Event{
		RuleID: 77, SrcIdentity: 65800, DstIdentity: 131400, Sport: 40000, Dport: 80, Family: 2, Proto: 6, Count: 3, TCPFlags: 2,
		Hook: bpf.HookPodIngress, Dir: bpf.DirIngress, Verdict: bpf.VerdictDeny, Reason: bpf.ReasonDefaultDenied,
		Flags: bpf.EventViaTunnel,
	}
	copy(e.Saddr[:], netip.MustParseAddr("10.14.0.5").AsSlice())
	copy(e.Daddr[:], netip.MustParseAddr("10.24.0.7").AsSlice())
	return e
}

var deathstar = table.Rule{
	Policy: "MeshNetworkPolicy/default/deathstar", Kind: "MeshNetworkPolicy", Namespace: "default", Name: "deathstar",
	Direction: bpf.DirIngress, Description: "isolates", Revision: "main@sha1:abc", Path: "policies/deathstar.yaml",
}

func TestADropIsToldInNames(t *testing.T) {
	n, tables := newNamer(t)
	if err := tables.WriteRecords([]table.Change{
		endpoint("east", "xwing", "10.14.0.5", 65800), endpoint("west", "deathstar", "10.24.0.7", 131400),
	}); err != nil {
		t.Fatal(err)
	}
	setRules(tables, map[uint32]table.Rule{77: deathstar})
	txn := tables.DB.ReadTxn()
	n.learn(time.Unix(0, 0))
	f := n.name(txn, time.Unix(5, 0), denied())
	want := "DENIED  east/default/xwing → west/default/deathstar:80/TCP  " +
		"policy default/MeshNetworkPolicy/deathstar (isolates)  policies/deathstar.yaml @ main@sha1:abc"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if f.Node != "west-1" || f.Cluster != "west" || !f.Encrypted || f.TCPFlags != "SYN" || f.Packets != 3 || f.Direction != "ingress" {
		t.Errorf("flow = %+v", f)
	}
}

func TestARuleIsRememberedForAWhile(t *testing.T) {
	n, tables := newNamer(t)
	setRules(tables, map[uint32]table.Rule{77: deathstar})
	start := time.Unix(1000, 0)
	n.learn(start)
	setRules(tables, nil)
	n.learn(start)
	late := start.Add(keepRules)
	n.learn(late)
	if f := n.name(tables.DB.ReadTxn(), late, denied()); f.Policy == nil || f.Policy.Name != "deathstar" {
		t.Errorf("policy of a late event = %+v", f.Policy)
	}
	n.learn(late.Add(time.Second))
	if f := n.name(tables.DB.ReadTxn(), late, denied()); f.Policy != nil {
		t.Errorf("a rule is remembered for ever: %+v", f.Policy)
	}
}

// A pod that ended and its successor may have the same address for a moment: the identity tells who it was.
func TestOfTwoPodsWithOneAddressTheJudgedOneIsNamed(t *testing.T) {
	n, tables := newNamer(t)
	if err := tables.WriteRecords([]table.Change{
		endpoint("east", "another", "10.14.0.5", 65900), endpoint("east", "xwing", "10.14.0.5", 65800), endpoint("east", "zebra", "10.14.0.5", 65901),
	}); err != nil {
		t.Fatal(err)
	}
	if f := n.name(tables.DB.ReadTxn(), time.Unix(0, 0), denied()); f.Source.Pod != "xwing" {
		t.Errorf("source = %+v", f.Source)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		reason  bpf.Reason
		verdict bpf.Verdict
		want    flow.Verdict
	}{
		{bpf.ReasonPolicyDenied, bpf.VerdictDeny, flow.Denied},
		{bpf.ReasonDefaultDenied, bpf.VerdictDeny, flow.Denied},
		{bpf.ReasonUnknownSource, bpf.VerdictDeny, flow.Dropped},
		{bpf.ReasonAudited, bpf.VerdictAuditDeny, flow.Audited},
		{bpf.ReasonTunneled, bpf.VerdictAuditDeny, flow.Audited},
		{bpf.ReasonTunneled, bpf.VerdictAllow, flow.Allowed},
	} {
		if got := verdict(bpf.Event{Reason: c.reason, Verdict: c.verdict}); got != c.want {
			t.Errorf("%s, %s: %s, want %s", c.reason, c.verdict, got, c.want)
		}
	}
}

func TestASlowFollowerMissesTheOldest(t *testing.T) {
	r := NewRing(4)
	for i := range 6 {
		r.Add(flow.Flow{Node: string(rune('a' + i))})
	}
	flows, next, missed, more := r.From(0)
	if len(flows) != 4 || flows[0].Node != "c" || flows[3].Node != "f" || next != 6 || missed != 2 {
		t.Errorf("flows %v, next %d, missed %d", flows, next, missed)
	}
	select {
	case <-more:
		t.Error("there is more before there is")
	default:
	}
	r.Add(flow.Flow{Node: "g"})
	<-more
	if flows, _, _, _ := r.From(next); len(flows) != 1 || flows[0].Node != "g" {
		t.Errorf("what came after = %v", flows)
	}
}

type source struct{ events []bpf.Event }

var errEnd = errors.New("the source ended")

func (s *source) Next(f func(time.Time, bpf.Event)) error {
	if len(s.events) == 0 {
		return errEnd
	}
	f(time.Unix(1, 0), s.events[0])
	s.events = s.events[1:]
	return nil
}

func TestReadNamesWhatTheSourceTells(t *testing.T) {
	n, _ := newNamer(t)
	ring := NewRing(8)
	err := Read(context.Background(), &source{[]bpf.Event{denied(), denied()}}, n, ring)
	if !errors.Is(err, errEnd) {
		t.Errorf("error = %v", err)
	}
	flows, _, _, _ := ring.From(0)
	if len(flows) != 2 || !strings.HasPrefix(flows[0].String(), "DENIED") {
		t.Errorf("flows = %v", flows)
	}
}
