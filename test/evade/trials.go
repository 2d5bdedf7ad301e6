// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

const (
	cutWithin = 2 * time.Second // how soon a policy must reach a connection
	theft     = 4 * time.Second
)

func (c cluster) hold(ctx context.Context, pod, to string, port int, args ...string) (job.Hold, error) {
	h := c.holdOn(ctx, pod, "", to, port, args...)
	err := <-h.done
	return h.hold, err
}

// holding is a connection in the background.
type holding struct {
	from, to  string
	connected chan struct{} // closed when it is, or when it failed
	done      chan error
	hold      job.Hold // once it is done
}

func (c cluster) holdOn(ctx context.Context, from, what, to string, port int, args ...string) *holding {
	h := &holding{from: from, to: what, connected: make(chan struct{}), done: make(chan error, 1)}
	args = append(append([]string{"hold"}, args...), net.JoinHostPort(to, fmt.Sprint(port)))
	go func() {
		said := json.NewDecoder(c.follow(ctx, from, args...))
		err := said.Decode(&h.hold)
		close(h.connected)
		for err == nil {
			err = said.Decode(&h.hold)
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("read what became of a connection: %w", err)
		}
		h.done <- err
	}()
	return h
}

func (s *suite) wanted(name string) bool { return s.match == nil || s.match.MatchString(name) }

// cut puts the policies up while connections run: what they don't allow ends, and stays ended.
func (s *suite) cut(ctx context.Context) error {
	const name = "a running connection when its policy comes"
	running := map[*place][]*holding{}
	if s.wanted(name) {
		if err := s.every(func(home, away *place) error {
			for i, family := range []int{four, six} {
				for n, who := range victims {
					port := fmt.Sprint(42000 + 10*i + n)
					to := s.named(home, away, who.away).pods[who.name]
					what := fmt.Sprintf("%s of %s (IPv%d)", who.name, s.named(home, away, who.away).name, 4+2*family)
					running[home] = append(running[home], home.holdOn(ctx, "raw", what, to.ip[family], open, "-for=40s", "-patience=8s", "-port", port, "-token", newToken()))
				}
			}
			return nil
		}); err != nil {
			return err
		}
		for _, all := range running {
			for _, h := range all {
				<-h.connected
			}
		}
	}
	begin := time.Now()
	for _, p := range s.places {
		fmt.Println("applying policies in", p.name)
		if err := p.apply(ctx, policies); err != nil {
			return err
		}
	}
	applied := time.Now()
	if s.wanted(name) {
		if err := s.every(func(home, away *place) error { return s.revive(ctx, home, away) }); err != nil {
			return err
		}
	}
	for home, all := range running {
		r := s.report.named(name, "raw", ingress+", within 2 s", false)
		for _, h := range all {
			if err := <-h.done; err != nil {
				return err
			}
			late := h.hold.LastEcho.Sub(applied)
			switch {
			case !h.hold.Connected:
				r.count(home.name, untried, h.to+": it didn't connect: "+h.hold.Broken)
			case late > cutWithin:
				r.count(home.name, gotThrough, fmt.Sprintf("%s: still answered %s after the policies (%s after the first)", h.to, late.Round(time.Millisecond), h.hold.LastEcho.Sub(begin).Round(time.Millisecond)))
			default:
				r.count(home.name, held, "")
			}
		}
		fmt.Println(r.line(home.name))
	}
	return s.enforced(ctx, func(home *place) ([]job.Job, string) {
		var jobs []job.Job
		for _, who := range victims {
			p := s.named(home, s.other(home), who.away)
			j := at(who.name, p.pods[who.name].ip[four], open)
			j.How, j.Token = "connect", newToken()
			jobs = append(jobs, j)
		}
		return jobs, "raw"
	})
}

func (s *suite) other(p *place) *place {
	if s.places[0] == p {
		return s.places[1]
	}
	return s.places[0]
}

func (s *suite) named(home, away *place, isAway bool) *place {
	if isAway {
		return away
	}
	return home
}

// revive tries to bring cut connections back, with the policies gone and back in between.
func (s *suite) revive(ctx context.Context, home, away *place) error {
	r := s.report.named("a cut connection by RST, FIN, ACK, SYN+ACK, SYN, with data", "raw", ingress, false)
	again := s.report.named("the same after the policies were deleted and made anew", "raw", ingress, false)
	fire := func(r *row) error {
		time.Sleep(cutWithin)
		var jobs []job.Job
		for i, family := range []int{four, six} {
			for n, who := range victims {
				p := s.named(home, away, who.away)
				for _, flags := range []string{"R", "RA", "FA", "A", "PA", "SA", "S", "PA"} {
					j := at(who.name+" of "+p.name, p.pods[who.name].ip[family], open)
					j.How, j.Detail, j.FromPort, j.Token = "tcp", flags, uint16(42000+10*i+n), newToken()
					jobs = append(jobs, j)
				}
			}
		}
		if _, err := home.try(ctx, "raw", jobs); err != nil {
			return err
		}
		time.Sleep(settle)
		arrived, err := s.seen(ctx)
		if err != nil {
			return err
		}
		for _, j := range jobs {
			if where := arrived.by(home, home.pods["raw"], j); where != "" {
				r.count(home.name, gotThrough, j.Detail+" to "+j.At+": "+where)
			} else {
				r.count(home.name, held, "")
			}
		}
		fmt.Println(r.line(home.name))
		return nil
	}
	if err := fire(r); err != nil {
		return err
	}
	for _, p := range s.places {
		if err := p.delete(ctx, policies); err != nil {
			return err
		}
		if err := p.apply(ctx, policies); err != nil {
			return err
		}
	}
	return fire(again)
}

// comeback: the victim called the attacker, which may answer, and must not call back.
func (s *suite) comeback(ctx context.Context, home, away *place) error {
	const name = "call back whoever called"
	if !s.wanted(name) {
		return nil
	}
	r := s.report.named(name, "raw", ingress, false)
	may := s.report.named("answer whoever called", "raw", ingress, true)
	for _, who := range victims {
		p := s.named(home, away, who.away)
		for i, family := range []int{four, six} {
			to, me := p.pods[who.name].ip[family], home.pods["raw"].ip[family]
			call := p.holdOn(ctx, who.name, "raw", me, open, "-for=4s", "-port", fmt.Sprint(43000+i), "-token", newToken())
			udp := at("raw", me, shutUDP)
			udp.How, udp.Detail, udp.FromPort, udp.Token = "unconnected", "from a port", uint16(43000+i), newToken()
			asked, err := p.try(ctx, who.name, []job.Job{udp})
			if err != nil {
				return err
			}
			what := fmt.Sprintf("%s of %s (IPv%d)", who.name, p.name, 4+2*family)
			if asked[udp.Token].Answered != "" {
				may.count(home.name, works, "")
			} else {
				may.count(home.name, shutWrong, what+" by UDP")
			}
			var jobs []job.Job
			add := func(how, detail string, fromPort, port int) {
				j := at(how+" "+detail+" to "+what, to, port)
				j.How, j.Detail, j.FromPort, j.Token = how, detail, uint16(fromPort), newToken()
				jobs = append(jobs, j)
			}
			own := 43000 + i
			add("tcp", "S", open, own)     // over the same ports, the other way
			add("tcp", "PA", shut, own)    // from another port
			add("tcp", "PA", open, own+10) // to another port
			add("udp", "", 9091, own)
			add("udp", "", shutUDP, own+10)
			add("udp", "", open, own)
			add("tcp", "PA", shutUDP, own)
			add("icmp", "echo", 0, 0)
			if _, err := home.try(ctx, "raw", jobs); err != nil {
				return err
			}
			if err := <-call.done; err != nil {
				return err
			}
			if call.hold.Broken != "" || call.hold.Echoed == 0 {
				may.count(home.name, shutWrong, fmt.Sprintf("%s by TCP: %+v", what, call.hold))
			} else {
				may.count(home.name, works, "")
			}
			time.Sleep(settle)
			arrived, err := s.seen(ctx)
			if err != nil {
				return err
			}
			for _, j := range jobs {
				if where := arrived.by(home, home.pods["raw"], j); where != "" {
					r.count(home.name, gotThrough, fmt.Sprintf("%s (%d > %d): %s", j.At, j.FromPort, j.Port, where))
				} else {
					r.count(home.name, held, "")
				}
			}
		}
	}
	fmt.Println(r.line(home.name))
	fmt.Println(may.line(home.name))
	return nil
}

// thefts try to draw a friend's connections with a victim to the attacker, or to break them.
func (s *suite) thefts(ctx context.Context, home, _ *place) error {
	near, friend, raw := home.pods["near"], home.pods["friend"], home.pods["raw"]
	for _, t := range []struct {
		name   string
		family int
		job    job.Job
	}{
		{"ARP in the victim's name", four, job.Job{Detail: "ARP", To: friend.ip[four], MAC: friend.mac, Claim: near.ip[four]}},
		{"ARP in the victim's name, to all", four, job.Job{Detail: "ARP", To: friend.ip[four], MAC: "broadcast", Claim: near.ip[four]}},
		{"ARP in the gateway's name", four, job.Job{Detail: "ARP", To: friend.ip[four], MAC: friend.mac, Claim: friend.gateway[four]}},
		{"neighbour advertisements in the victim's name", six, job.Job{Detail: "neighbour advertisement", To: friend.ip[six], MAC: friend.mac, Over: near.ip[six]}},
		{"long neighbour advertisements in the victim's name", six, job.Job{Detail: "long neighbour advertisement", To: friend.ip[six], MAC: friend.mac, Over: near.ip[six]}},
		{"neighbour advertisements in the gateway's name", six, job.Job{Detail: "neighbour advertisement", To: friend.ip[six], MAC: friend.mac, Over: friend.gateway[six]}},
		{"neighbour advertisements of the gateway's link-local address", six, job.Job{Detail: "neighbour advertisement", To: friend.ip[six], MAC: friend.mac, Over: raw.linkRouter, Claim: raw.linkRouter}},
		{"frames from the victim's hardware address", four, job.Job{Detail: "hardware address", To: raw.gateway[four], Port: 9, MAC: raw.router, Mine: near.mac}},
		{"frames from the friend's hardware address", four, job.Job{Detail: "hardware address", To: raw.gateway[four], Port: 9, MAC: raw.router, Mine: friend.mac}},
		{"frames from the gateway's hardware address", four, job.Job{Detail: "hardware address", To: raw.gateway[four], Port: 9, MAC: raw.router, Mine: raw.router}},
		{"frames from the victim's hardware address, IPv6", six, job.Job{Detail: "hardware address", To: raw.gateway[six], Port: 9, MAC: raw.router, Mine: near.mac}},
		{"ARP that changes meanwhile", four, job.Job{How: "steal shared", To: friend.ip[four], MAC: friend.mac, Claim: near.ip[four]}},
		{"neighbour advertisements that change meanwhile", six, job.Job{How: "steal shared", To: friend.ip[six], MAC: friend.mac, Claim: near.ip[six]}},
	} {
		name := "steal a friend's connection: " + t.name
		if !s.wanted(name) {
			continue
		}
		r := s.report.named(name, "raw", "a pod's packets come from its addresses; the friend goes on", false)
		v, why, err := s.steal(ctx, home, near.ip[t.family], t.job)
		if err != nil {
			return err
		}
		r.count(home.name, v, why)
		fmt.Println(r.line(home.name))
	}
	return nil
}

// steal lets the friend talk to the victim, quietly and then under attack.
func (s *suite) steal(ctx context.Context, home *place, victim string, j job.Job) (verdict, string, error) {
	token := newToken()
	// A bridge that an earlier theft misled learns from any frame of theirs where they are.
	for _, name := range []string{"near", "friend"} {
		for _, gateway := range home.pods[name].gateway {
			hello := at("the gateway", gateway, 9)
			hello.How, hello.Token = "unconnected", newToken()
			if _, err := home.try(ctx, name, []job.Job{hello}); err != nil {
				return untried, "", err
			}
		}
	}
	before, err := home.hold(ctx, "friend", victim, open, "-for=1s", "-fresh", "-token", token)
	if err != nil {
		return untried, "", err
	}
	if before.Broken != "" || before.Failed > 0 {
		return untried, fmt.Sprintf("the friend doesn't get through without it either: %+v", before), nil
	}
	h := home.holdOn(ctx, "friend", "near", victim, open, "-for=6s", "-fresh", "-token", token)
	time.Sleep(time.Second)
	if j.How == "" {
		j.How = "steal"
	}
	j.Token, j.For = newToken(), theft
	results, err := home.try(ctx, "raw", []job.Job{j})
	if err := errors.Join(err, <-h.done); err != nil {
		return untried, "", err
	}
	if text := results[j.Token].Err; text != "" {
		return untried, text, nil
	}
	stolen, err := home.seen(ctx, "raw")
	if err != nil {
		return untried, "", err
	}
	if sightings := stolen[token]; len(sightings) > 0 {
		return gotThrough, "the attacker got " + sightings[0].What, nil
	}
	if h.hold.Broken != "" || h.hold.LongestGap > time.Second || h.hold.Failed > 0 {
		return gotThrough, fmt.Sprintf("the friend's connection broke (%q), was silent for %s, %d of %d new ones failed", h.hold.Broken, h.hold.LongestGap.Round(time.Millisecond), h.hold.Failed, h.hold.Failed+h.hold.Fresh), nil
	}
	return held, "", nil
}
