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
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

func newNamer(t *testing.T) (*Namer, *table.Tables) {
	t.Helper()
	tables := table.New()
	return NewNamer(tables, "west-1", func() string { return "west" }), tables
}

type located struct {
	cluster string
	*record.Endpoint
}

func endpoint(cluster, name, addr string, id uint32) located {
	return located{cluster, &record.Endpoint{
		Namespace: "default", Name: name, Addresses: []netip.Addr{netip.MustParseAddr(addr)}, Identity: id,
	}}
}

func file(tables *table.Tables, endpoints ...located) {
	tables.RecordWriter().Write(func(txn table.RecordTxn) {
		for _, e := range endpoints {
			txn.Put(e.cluster+"/endpoints/default/"+e.Name, e.Endpoint)
		}
	})
}

func setRules(tables *table.Tables, rules map[uint32]*table.Rule) {
	tables.Write(func(txn *table.Txn) {
		for id, rule := range rules {
			if rule == nil {
				tables.ForPlan().Rules.Delete(txn, id)
			} else {
				tables.ForPlan().Rules.Put(txn, id, *rule)
			}
		}
	})
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

func TestICMPIsToldByItsType(t *testing.T) {
	n, _ := newNamer(t)
	for want, e := range map[string]bpf.Event{
		"10.24.0.7:EchoRequest/ICMP":              {Proto: 1, Family: 2, Sport: 7, Dport: 9},
		"10.24.0.7:200/ICMP":                      {Proto: 1, Family: 2, Dport: 201},
		"10.24.0.7/ICMP":                          {Proto: 1, Family: 2},
		"[a18:7::]:NodeInformationQuery/ICMPv6":   {Proto: 58, Family: 10, Sport: 7, Dport: 140},
		"[a18:7::]:DestinationUnreachable/ICMPv6": {Proto: 58, Family: 10, Dport: 2},
		"10.24.0.7:80/TCP":                        {Proto: 6, Family: 2, Dport: 80},
		"10.24.0.7/proto-47":                      {Proto: 47, Family: 2},
	} {
		copy(e.Daddr[:], netip.MustParseAddr("10.24.0.7").AsSlice())
		f := n.name(time.Unix(5, 0), e)
		f.Destination.Kind = ""
		if got := f.String(); !strings.Contains(got, "→ "+want) {
			t.Errorf("%+v is reported as %q, want %s", e, got, want)
		}
	}
}

func TestADropIsToldInNames(t *testing.T) {
	n, tables := newNamer(t)
	file(tables, endpoint("east", "xwing", "10.14.0.5", 65800), endpoint("west", "deathstar", "10.24.0.7", 131400))
	setRules(tables, map[uint32]*table.Rule{77: &deathstar})
	n.learn(time.Unix(0, 0))
	f := n.name(time.Unix(5, 0), denied())
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
	setRules(tables, map[uint32]*table.Rule{77: &deathstar})
	start := time.Unix(1000, 0)
	n.learn(start)
	setRules(tables, map[uint32]*table.Rule{77: nil})
	n.learn(start)
	late := start.Add(keepRules)
	n.learn(late)
	if f := n.name(late, denied()); f.Policy == nil || f.Policy.Name != "deathstar" {
		t.Errorf("policy of a late event = %+v", f.Policy)
	}
	n.learn(late.Add(time.Second))
	if f := n.name(late, denied()); f.Policy != nil {
		t.Errorf("a rule is remembered for ever: %+v", f.Policy)
	}
}

// A pod that ended and its successor may have the same address for a moment: the identity tells who it was.
func TestOfTwoPodsWithOneAddressTheJudgedOneIsNamed(t *testing.T) {
	n, tables := newNamer(t)
	file(tables, endpoint("east", "another", "10.14.0.5", 65900), endpoint("east", "xwing", "10.14.0.5", 65800), endpoint("east", "zebra", "10.14.0.5", 65901))
	if f := n.name(time.Unix(0, 0), denied()); f.Source.Pod != "xwing" {
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
