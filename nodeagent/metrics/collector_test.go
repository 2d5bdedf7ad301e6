// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

var quiet = slog.New(slog.DiscardHandler)

// fake is a datapath that counts what it is told.
type fake struct {
	rules map[bpf.RuleKey]bpf.Counter
	err   error
}

func (f *fake) datapath() Datapath {
	return Datapath{
		Counters: func() (map[datapath.Counter]bpf.Counter, error) {
			return map[datapath.Counter]bpf.Counter{
				{Reason: bpf.ReasonPolicyDenied, Hook: bpf.HookPodEgress}: {Packets: 3, Bytes: 180},
			}, f.err
		},
		RuleCounters: func() (map[bpf.RuleKey]bpf.Counter, error) { return f.rules, nil },
	}
}

func key(id uint32, verdict bpf.Verdict) bpf.RuleKey {
	return bpf.RuleKey{RuleID: id, Dir: bpf.DirEgress, Verdict: verdict}
}

// rules: two that read alike, and one with a long text.
func rule(id uint32) (table.Rule, bool) {
	switch id {
	case 1, 2:
		return table.Rule{Kind: "NetworkPolicy", Namespace: "shop", Name: "api", Description: "allow to anywhere"}, true
	case 3:
		return table.Rule{Kind: "ClusterNetworkPolicy", Name: "nodes", Description: strings.Repeat("é", 100)}, true
	}
	return table.Rule{}, false
}

func TestCollect(t *testing.T) {
	f := &fake{rules: map[bpf.RuleKey]bpf.Counter{
		key(0, bpf.VerdictAllow): {Packets: 5}, key(1, bpf.VerdictAllow): {Packets: 2}, key(2, bpf.VerdictAllow): {Packets: 4},
		key(3, bpf.VerdictDeny): {Packets: 7}, key(9, bpf.VerdictDeny): {Packets: 1},
	}}
	c := NewCollector(f.datapath(), rule, quiet)
	long := strings.Repeat("é", 60) + "…"
	want := `
# HELP fairlead_datapath_bytes_total Bytes of these packets.
# TYPE fairlead_datapath_bytes_total counter
fairlead_datapath_bytes_total{hook="pod-egress",reason="policy-denied"} 180
# HELP fairlead_datapath_packets_total Packets by the hook that judged them and what became of them (docs/reference/drop-reasons.md).
# TYPE fairlead_datapath_packets_total counter
fairlead_datapath_packets_total{hook="pod-egress",reason="policy-denied"} 3
# HELP fairlead_policy_verdicts_total New flows and denied packets, by the rule that decided; "other" is all that is not told by rule, "none" what no rule had a say in.
# TYPE fairlead_policy_verdicts_total counter
fairlead_policy_verdicts_total{direction="egress",kind="",namespace="",policy="",rule="none",verdict="allow"} 5
fairlead_policy_verdicts_total{direction="egress",kind="",namespace="",policy="",rule="other",verdict="deny"} 1
fairlead_policy_verdicts_total{direction="egress",kind="ClusterNetworkPolicy",namespace="",policy="nodes",rule="` + long + `",verdict="deny"} 7
fairlead_policy_verdicts_total{direction="egress",kind="NetworkPolicy",namespace="shop",policy="api",rule="allow to anywhere",verdict="allow"} 6
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(c); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	f.err = errors.New("no map")
	if err := testutil.CollectAndCompare(c, strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "no map") {
		t.Errorf("counters that can't be read make the scrape fail with %v", err)
	}
}

// Beyond the bound rules are summed up, and no counter ever goes down for it.
func TestRulesAreBounded(t *testing.T) {
	f := &fake{rules: map[bpf.RuleKey]bpf.Counter{}}
	c := NewCollector(f.datapath(), func(id uint32) (table.Rule, bool) {
		return table.Rule{Kind: "NetworkPolicy", Name: fmt.Sprint(id)}, true
	}, quiet)
	c.max = 10
	rest := series{rule: other, direction: "egress", verdict: "deny"}
	want := func(when string, told int, sum uint64) {
		t.Helper()
		got := c.byRule(f.rules)
		if len(got) != told+1 || got[rest] != sum {
			t.Errorf("%s: %d series, %d in the rest; want %d and %d", when, len(got), got[rest], told+1, sum)
		}
	}
	for id := range uint32(30) {
		f.rules[key(id+1, bpf.VerdictDeny)] = bpf.Counter{Packets: uint64(id + 1)}
	}
	want("the busiest are told", 10, 20*21/2)
	f.rules[key(1, bpf.VerdictDeny)] = bpf.Counter{Packets: 101}
	want("one of the rest is the busiest now", 10, 20*21/2+100)
	f.rules[key(1, bpf.VerdictDeny)] = bpf.Counter{Packets: 3}
	want("it lost its row and has another", 10, 20*21/2+100)
	for id := range uint32(5) {
		delete(f.rules, key(id+1, bpf.VerdictDeny))
	}
	want("rules of the rest are gone", 10, 20*21/2+100)
	delete(f.rules, key(30, bpf.VerdictDeny))
	f.rules[key(77, bpf.VerdictDeny)] = bpf.Counter{Packets: 9}
	want("a new one has the place of one that is gone", 10, 20*21/2+100)
	if len(c.seen) != len(f.rules) {
		t.Errorf("%d series are remembered, of %d", len(c.seen), len(f.rules))
	}
}

func TestServer(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := &Server{Address: taken.Addr().String(), Log: slog.New(slog.NewTextHandler(&said, nil)), Collectors: []prometheus.Collector{NewCollector((&fake{}).datapath(), rule, quiet)}}
	if err := s.serve(ctx, http.NotFoundHandler()); err == nil {
		t.Fatal("two listen at one address")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	text := ""
	for range 500 {
		if resp, err := http.Get("http://" + s.Address + "/metrics"); err == nil {
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			text = string(body)
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	for _, name := range []string{"fairlead_datapath_packets_total{", "go_goroutines ", "process_open_fds "} {
		if !strings.Contains(text, name) {
			t.Errorf("no %s in %q", name, text)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
