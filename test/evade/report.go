// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// row is an attack of a kind of pod, with what came of it in each cluster.
type row struct {
	name, from, stands string
	allowed            bool
	seen               map[string]*tally
}

// tally counts verdicts in a cluster.
type tally struct {
	counts [never + 1]int
	why    []string // of those that are no good, and why others couldn't be tried
}

type report struct {
	rows  []*row
	index map[string]*row
}

func newReport() *report { return &report{index: map[string]*row{}} }

func (r *report) row(a *attack, from string) *row { return r.named(a.name, from, a.stands, a.allowed) }

func (r *report) named(name, from, stands string, allowed bool) *row {
	key := name + "\x00" + from
	if r.index[key] == nil {
		r.index[key] = &row{name: name, from: from, stands: stands, allowed: allowed, seen: map[string]*tally{}}
		r.rows = append(r.rows, r.index[key])
	}
	return r.index[key]
}

// add counts a shot, and says whether it is the first of its row in a cluster.
func (r *row) add(cluster string, s *shot) bool {
	v, why := s.judge()
	if v == gotThrough || v == shutWrong || v == untried {
		why = s.target() + ": " + why
	}
	return r.count(cluster, v, why)
}

func (r *row) count(cluster string, v verdict, why string) (first bool) {
	t := r.seen[cluster]
	if t == nil {
		t = &tally{}
		r.seen[cluster] = t
		first = true
	}
	t.counts[v]++
	if v == gotThrough || v == shutWrong || v == untried {
		t.why = append(t.why, v.String()+": "+why)
	}
	return first
}

// bad says whether something got through, or what is allowed doesn't.
func (t *tally) bad() bool { return t.counts[gotThrough] > 0 || t.counts[shutWrong] > 0 }

func (t *tally) String() string {
	var parts []string
	for v, n := range t.counts {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", verdict(v), n))
		}
	}
	return strings.Join(parts, ", ")
}

// line is for people who watch.
func (r *row) line(cluster string) string {
	t := r.seen[cluster]
	out := fmt.Sprintf("%-5s %-14s %-60s %s", cluster, r.from, r.name, t)
	limit := 3
	if t.bad() {
		limit = 12
	}
	for i, why := range t.why {
		if i == limit {
			return out + fmt.Sprintf("\n        and %d more", len(t.why)-limit)
		}
		if t.bad() || i < limit {
			out += "\n        " + why
		}
	}
	return out
}

// bad counts the rows that are.
func (r *report) bad() (n int) {
	for _, row := range r.rows {
		for _, t := range row.seen {
			if t.bad() {
				n++
				break
			}
		}
	}
	return n
}

// actorsSay names the pods of rows for people.
var actorsSay = map[string]string{"raw": "root with NET_RAW", "plain": "nobody, no capabilities", "friend": "a friend with NET_RAW", "ally": "a friend with NET_RAW",
	"outcast": "an outcast with NET_RAW", "outcast-plain": "an outcast, no capabilities"}

// render makes the page.
func (r *report) render(clusters []string) string {
	var b strings.Builder
	b.WriteString(`# Attempts to get around policy

` + "`make evade`" + ` lets pods of the demo's clusters attack others, first without policies, to see that a technique works, and then
with them. What counts is what the victims saw: they look at every frame that reaches their interface. Each number is how many targets
and address families it was tried on: pods of the own node, of another one and of the other cluster, by every address that leads to them.

- held: without policies it arrives (what claims a foreign address: the same with the own one), with them it doesn't.
- never arrives: policies or not, as is to be expected of it. It was tried with them all the same.
- could not be tried: nothing arrives without policies either, so nothing is proved.
- refused by the kernel: the pod may not even send it.

| attack | pod | what stands in the way | expected |`)
	for _, c := range clusters {
		b.WriteString(" " + c + " |")
	}
	b.WriteString("\n|---|---|---|---|" + strings.Repeat("---|", len(clusters)) + "\n")
	for _, row := range r.rows {
		expected := "held"
		if row.allowed {
			expected = "works"
		}
		who := actorsSay[row.from]
		if who == "" {
			who = row.from
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |", row.name, who, row.stands, expected)
		for _, c := range clusters {
			if t := row.seen[c]; t != nil {
				fmt.Fprintf(&b, " %s |", t)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteString("\n")
	}
	if r.bad() == 0 {
		return b.String()
	}
	b.WriteString("\n## What got through\n\n")
	for _, row := range r.rows {
		for _, c := range clusters {
			if t := row.seen[c]; t != nil && t.bad() {
				fmt.Fprintf(&b, "- %s (%s, %s)\n", row.name, row.from, c)
			}
		}
	}
	return b.String()
}
