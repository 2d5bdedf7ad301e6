// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics tells Prometheus what the datapath counts: packets by what became of them, and verdicts by the policy and
// rule that gave them. docs/reference/metrics.md lists all.
package metrics

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// maxRules bounds the series about rules: those that are told stay told as long as their rule exists, so that none goes up
// and down, and what is beyond is summed up.
const maxRules = 2000

// maxText of a rule, in bytes. Lists of peers can be long.
const maxText = 120

// Datapath counts.
type Datapath struct {
	Counters     func() (map[datapath.Counter]bpf.Counter, error)
	RuleCounters func() (map[bpf.RuleKey]bpf.Counter, error)
}

// Collector reads the datapath's counters whenever Prometheus asks.
type Collector struct {
	from Datapath
	rule func(id uint32) (table.Rule, bool)
	log  *slog.Logger

	mu     sync.Mutex
	seen   map[series]*sighting // with a row in the datapath
	told   int                  // of them
	others map[series]uint64    // what was counted by those that aren't told, whatever became of them
	max    int
}

// sighting is what the last collection saw of a series.
type sighting struct {
	told  bool
	count uint64 // of one that isn't
}

// other is the rule of what is not told by rule.
const other = "other"

// series are the labels of what a rule decided.
type series struct{ kind, namespace, policy, rule, direction, verdict string }

// other is the series that stands in for one that isn't told.
func (s series) other() series {
	return series{rule: other, direction: s.direction, verdict: s.verdict}
}

var (
	packets = desc("fairlead_datapath_packets_total", "Packets by the hook that judged them and what became of them (docs/reference/drop-reasons.md).", "hook", "reason")
	bytes   = desc("fairlead_datapath_bytes_total", "Bytes of these packets.", "hook", "reason")
	judged  = desc("fairlead_policy_verdicts_total", "New flows and denied packets, by the rule that decided; \"other\" is all that is not told by rule, \"none\" what no rule had a say in.",
		"kind", "namespace", "policy", "rule", "direction", "verdict")
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// NewCollector makes a collector. rule finds a rule by its number.
func NewCollector(from Datapath, rule func(id uint32) (table.Rule, bool), log *slog.Logger) *Collector {
	return &Collector{from: from, rule: rule, log: log, seen: map[series]*sighting{}, others: map[series]uint64{}, max: maxRules}
}

// Describe is of prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	out <- packets
	out <- bytes
	out <- judged
}

// Collect is of prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	counters, err := c.from.Counters()
	if err != nil {
		c.fail(out, packets, err)
	}
	for name, n := range counters {
		hook, reason := name.Hook.String(), name.Reason.String()
		out <- prometheus.MustNewConstMetric(packets, prometheus.CounterValue, float64(n.Packets), hook, reason)
		out <- prometheus.MustNewConstMetric(bytes, prometheus.CounterValue, float64(n.Bytes), hook, reason)
	}
	rules, err := c.from.RuleCounters()
	if err != nil {
		c.fail(out, judged, err)
	}
	for s, n := range c.byRule(rules) {
		out <- prometheus.MustNewConstMetric(judged, prometheus.CounterValue, float64(n), s.kind, s.namespace, s.policy, s.rule, s.direction, s.verdict)
	}
}

// fail makes the scrape fail: a counter that is missing must not look like one that stands still.
func (c *Collector) fail(out chan<- prometheus.Metric, d *prometheus.Desc, err error) {
	c.log.Error("the datapath's counters can't be read", "error", err)
	out <- prometheus.NewInvalidMetric(d, fmt.Errorf("read the datapath's counters: %w", err))
}

// byRule sums up what each rule decided. Rules of a policy that read alike are one.
func (c *Collector) byRule(counters map[bpf.RuleKey]bpf.Counter) map[series]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	sums := map[series]uint64{}
	for key, n := range counters {
		sums[c.seriesOf(key)] += n.Packets
	}
	for s := range c.seen {
		if _, counts := sums[s]; !counts {
			c.forget(s)
		}
	}
	out := make(map[series]uint64, len(sums))
	// The busiest first, where there is no room for all.
	for _, s := range slices.SortedFunc(maps.Keys(sums), func(a, b series) int { return cmp.Compare(sums[b], sums[a]) }) {
		if was := c.see(s); was.told {
			out[s] = sums[s]
		} else {
			if sums[s] > was.count {
				c.others[s.other()] += sums[s] - was.count
			}
			was.count = sums[s]
		}
	}
	maps.Copy(out, c.others)
	return out
}

// see finds what is known of a series. One that is new is told if there is room.
func (c *Collector) see(s series) *sighting {
	if c.seen[s] == nil {
		c.seen[s] = &sighting{told: s.rule != other && c.told < c.max}
		if c.seen[s].told {
			c.told++
		}
	}
	return c.seen[s]
}

func (c *Collector) forget(s series) {
	if c.seen[s].told {
		c.told--
	}
	delete(c.seen, s)
}

func (c *Collector) seriesOf(key bpf.RuleKey) series {
	s := series{rule: "none", direction: key.Dir.String(), verdict: key.Verdict.String()}
	if key.RuleID == 0 {
		return s // no rule had a say
	}
	r, known := c.rule(key.RuleID)
	if !known { // it is gone
		s.rule = other
		return s
	}
	s.kind, s.namespace, s.policy, s.rule = r.Kind, r.Namespace, r.Name, shortened(r.Description)
	return s
}

func shortened(text string) string {
	if len(text) <= maxText {
		return text
	}
	cut := maxText
	for cut > 0 && text[cut]&0xc0 == 0x80 { // not within a character
		cut--
	}
	return text[:cut] + "…"
}
