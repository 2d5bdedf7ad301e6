// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// imagined is a cluster as look would find it.
func imagined(name string, n int) *place {
	p := &place{cluster: cluster{name: name}, pods: map[string]pod{}, services: map[string]pair{}}
	addr := func(net, host int) pair {
		return pair{fmt.Sprintf("10.%d%d.1.%d", n, net, host), fmt.Sprintf("fd00:%d%d:0:1::%d", n, net, host)}
	}
	for i := range 2 {
		p.nodes = append(p.nodes, addr(1, 11+i))
	}
	for i, a := range actors {
		mac := fmt.Sprintf("02:00:00:00:0%d:%02x", n, i)
		p.pods[a.name] = pod{actor: a, ip: addr(4, 2+i), gateway: addr(4, 1), mac: mac, router: "02:00:00:00:00:ff", linkRouter: linkLocal("02:00:00:00:00:ff")}
	}
	for i, s := range []string{"victims", "victims-local", "victims-balanced", "far", "friends", "hosts", "kubernetes", "kube-dns"} {
		p.services[s] = addr(6, 1+i)
	}
	return p
}

// Every attack has somebody who tries it, and targets whose addresses can be read.
func TestAttacksAim(t *testing.T) {
	east, west := imagined("east", 1), imagined("west", 2)
	names := map[string]bool{}
	tokens := map[string]bool{}
	for _, a := range attacks() {
		for from := range strings.FieldsSeq(a.from) {
			if _, ok := east.pods[from]; !ok {
				t.Errorf("%s: nobody is called %q", a.name, from)
			}
			shots := a.aimed(east, west, from)
			if len(shots) == 0 {
				t.Errorf("%s from %s aims at nothing", a.name, from)
			}
			for _, s := range shots {
				j := s.jobs[with]
				for what, text := range map[string]string{"to": j.To, "claim": j.Claim, "over": j.Over} {
					if text == "" {
						continue
					}
					if _, err := netip.ParseAddr(text); err != nil {
						t.Errorf("%s, %s: %v", a.name, what, err)
					}
				}
				if a.control == honest && s.jobs[without].Claim != "" {
					t.Errorf("%s: the control claims %s", a.name, s.jobs[without].Claim)
				}
				for _, j := range s.jobs {
					if tokens[j.Token] {
						t.Fatalf("%s: the token %s is used twice", a.name, j.Token)
					}
					tokens[j.Token] = true
				}
			}
		}
		names[a.name] = true
	}
	if len(names) < 150 {
		t.Errorf("%d kinds of attacks, where are the others?", len(names))
	}
}

func TestJudge(t *testing.T) {
	arrived, answered, nothingCame := &outcome{arrived: "near"}, &outcome{result: job.Result{Answered: "yes"}}, &outcome{}
	forbidden := &outcome{result: job.Result{Err: "no", Refused: true}}
	for _, c := range []struct {
		attack       attack
		before, then *outcome
		want         verdict
	}{
		{attack{}, arrived, nothingCame, held},
		{attack{}, answered, nothingCame, held},
		{attack{}, arrived, arrived, gotThrough},
		{attack{}, nothingCame, answered, gotThrough},
		{attack{}, nothingCame, nothingCame, untried},
		{attack{}, arrived, nil, untried},
		{attack{}, arrived, &outcome{result: job.Result{Err: "no such thing"}}, untried},
		{attack{}, forbidden, forbidden, refused},
		{attack{control: nothing}, nothingCame, nothingCame, never},
		{attack{control: nothing}, arrived, nothingCame, held},
		{attack{control: nothing}, nothingCame, arrived, gotThrough},
		{attack{allowed: true}, arrived, arrived, works},
		{attack{allowed: true}, arrived, nothingCame, shutWrong},
	} {
		s := &shot{attack: &c.attack}
		s.tries[without], s.tries[with] = c.before, c.then
		if got, _ := s.judge(); got != c.want {
			t.Errorf("%+v before, %+v then: %s, want %s", c.before, c.then, got, c.want)
		}
	}
}

func TestReport(t *testing.T) {
	r := newReport()
	a, b := &attack{name: "A", stands: "a wall"}, &attack{name: "B", allowed: true}
	for _, s := range []*shot{
		{attack: a, tries: [phaseCount]*outcome{{arrived: "near"}, {}}},
		{attack: a, tries: [phaseCount]*outcome{{arrived: "near"}, {arrived: "far"}}},
		{attack: b, tries: [phaseCount]*outcome{{arrived: "near"}, {arrived: "near"}}},
	} {
		r.row(s.attack, "raw").add("east", s)
	}
	page := r.render([]string{"east", "west"})
	for _, want := range []string{
		"| A | root with NET_RAW | a wall | held | held 1, GOT THROUGH 1 | |\n", "| works | works, as it may 1 | |\n", "## What got through", "- A (raw, east)\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in:\n%s", want, page)
		}
	}
	if r.bad() != 1 {
		t.Errorf("%d bad rows, want 1", r.bad())
	}
}

func TestAddresses(t *testing.T) {
	if got := linkLocal("82:10:76:65:df:38"); got != "fe80::8010:76ff:fe65:df38" {
		t.Error(got)
	}
	if got := subnetEnds("10.14.1.7"); len(got) != 2 || got[0] != "10.14.1.0" || got[1] != "10.14.1.255" {
		t.Error(got)
	}
	if got := subnetEnds("fd00:14:0:1::7"); len(got) != 1 || got[0] != "fd00:14:0:1::" {
		t.Error(got)
	}
	if got := pairOf([]string{"fd00::1", "10.0.0.1", "10.0.0.2", "x"}); got != (pair{"10.0.0.1", "fd00::1"}) {
		t.Error(got)
	}
}
