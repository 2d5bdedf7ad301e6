// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

const (
	settle  = 500 * time.Millisecond // until what was sent has arrived
	changed = 60 * time.Second       // how long a change of policy may take
)

// suite runs all attacks on two clusters.
type suite struct {
	places  []*place
	home    []string // where attackers are let loose
	match   *regexp.Regexp
	attacks []*attack
	report  *report
	shots   map[*place][]*shot
}

// every calls for each home cluster and the other one.
func (s *suite) every(do func(home, away *place) error) error {
	for i, p := range s.places {
		for _, name := range s.home {
			if name != p.name {
				continue
			}
			if err := do(p, s.places[1-i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *suite) run(ctx context.Context) error {
	if err := s.every(func(home, away *place) error {
		for _, a := range s.attacks {
			for from := range strings.FieldsSeq(a.from) {
				s.shots[home] = append(s.shots[home], a.aimed(home, away, from)...)
			}
		}
		return s.shoot(ctx, without, home)
	}); err != nil {
		return err
	}
	if err := s.cut(ctx); err != nil {
		return err
	}
	if err := s.every(func(home, away *place) error {
		if err := s.shoot(ctx, with, home); err != nil {
			return err
		}
		if err := s.comeback(ctx, home, away); err != nil {
			return err
		}
		return s.thefts(ctx, home, away)
	}); err != nil {
		return err
	}
	if err := s.closeNodes(ctx); err != nil {
		return err
	}
	return s.every(func(home, _ *place) error { return s.shoot(ctx, nodesShut, home) })
}

// shoot does all jobs of a phase from a cluster, group by group.
func (s *suite) shoot(ctx context.Context, p phase, home *place) error {
	type batch struct{ group, from string }
	shots := map[batch][]*shot{}
	var order []batch
	for _, shot := range s.shots[home] {
		if p != without && p != shot.attack.phase() {
			continue
		}
		b := batch{shot.attack.group, shot.from}
		if shots[b] == nil {
			order = append(order, b)
		}
		shots[b] = append(shots[b], shot)
	}
	if p == without {
		fmt.Printf("trying %d shots from %s without policies\n", len(s.shots[home]), home.name)
	}
	for _, b := range order {
		if err := volley(ctx, p, home, b.from, shots[b]); err != nil {
			return err
		}
	}
	time.Sleep(settle)
	// Tokens tell them apart: it is enough to ask once.
	seen, err := s.seen(ctx)
	if err != nil {
		return err
	}
	for _, b := range order {
		for _, shot := range shots[b] {
			shot.tries[p].arrived = seen.by(home, home.pods[b.from], shot.jobs[p])
		}
	}
	if p != without {
		s.tell(home, p)
	}
	return nil
}

// volley has a pod do jobs.
func volley(ctx context.Context, p phase, home *place, from string, shots []*shot) error {
	jobs := make([]job.Job, len(shots))
	for i, shot := range shots {
		jobs[i] = shot.jobs[p]
	}
	results, err := home.try(ctx, from, jobs)
	if err != nil {
		return err
	}
	for _, shot := range shots {
		shot.tries[p] = &outcome{result: results[shot.jobs[p].Token]}
	}
	return nil
}

// witness is a pod that looks at what arrives.
type witness struct {
	place *place
	actor actor
	seen  map[string][]job.Sighting
}

type witnesses []*witness

// seen asks all pods that somebody may not reach.
func (s *suite) seen(ctx context.Context) (witnesses, error) {
	var all witnesses
	var g errgroup.Group
	g.SetLimit(4)
	for _, p := range s.places {
		for _, a := range actors {
			if a.role == "attacker" || a.role == "outcast" {
				continue
			}
			w := &witness{place: p, actor: a}
			all = append(all, w)
			g.Go(func() (err error) {
				w.seen, err = p.seen(ctx, a.name)
				return err
			})
		}
	}
	return all, g.Wait()
}

// by says where a token of a pod's arrived, of all places where it may not. Outcasts may reach nobody, others what nothing protects.
func (all witnesses) by(home *place, me pod, j job.Job) string {
	for _, w := range all {
		if w.place == home && w.actor.name == me.name || (w.actor.role == "friend" || w.actor.role == "bystander") && me.role != "outcast" {
			continue
		}
		if me.role == "outcast" && w.actor.host && w.place == home && w.actor.node == me.node {
			continue // isolation doesn't mean the own node, by whichever service it is reached
		}
		for _, sighting := range w.seen[j.Token] {
			if j.Open != 0 && strings.HasSuffix(sighting.What, fmt.Sprintf(" > %d", j.Open)) {
				continue // at the port that is open
			}
			return fmt.Sprintf("%s of %s: %s", w.actor.name, w.place.name, sighting.What)
		}
	}
	return ""
}

// tell judges the shots of a phase, and prints a line for each attack and pod.
func (s *suite) tell(home *place, p phase) {
	var order []*row
	for _, shot := range s.shots[home] {
		if shot.attack.phase() != p {
			continue
		}
		r := s.report.row(shot.attack, shot.from)
		if r.add(home.name, shot) {
			order = append(order, r)
		}
	}
	for _, r := range order {
		fmt.Println(r.line(home.name))
	}
}

// enforced waits until policies are in force: a friend gets through to all victims of both clusters, nobody else does.
func (s *suite) enforced(ctx context.Context, extra func(home *place) ([]job.Job, string)) error {
	deadline := time.Now().Add(changed)
	for _, p := range s.places {
		for {
			jobs, pod := extra(p)
			results, err := p.try(ctx, pod, jobs)
			if err != nil {
				return err
			}
			through := ""
			for _, j := range jobs {
				if results[j.Token].Answered != "" {
					through = j.At
				}
			}
			if through == "" {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: %s still answers %s, %s after the policies", p.name, through, pod, changed)
			}
		}
	}
	return nil
}

func (s *suite) closeNodes(ctx context.Context) error {
	for _, p := range s.places {
		if err := p.apply(ctx, nodesClosed); err != nil {
			return err
		}
	}
	return s.enforced(ctx, func(home *place) ([]job.Job, string) {
		j := at("another node", home.nodes[1][four], kubelet)
		j.How, j.Token = "connect", newToken()
		return []job.Job{j}, "raw"
	})
}
