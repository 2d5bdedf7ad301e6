// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// phase is which policies there are.
type phase int

const (
	without    phase = iota // no policies: the control
	with                    // those of the scenario
	nodesShut               // and one that closes ports of all nodes
	phaseCount              // how many there are
)

// control is how it is known that a technique works at all.
type control int

const (
	// samePacket: without policies the same arrives.
	samePacket control = iota
	// honest: the same with the own address arrives without policies. With another one it never may.
	honest
	// nothing: it arrives nowhere on a kernel of today, with or without policy, or only in some places.
	nothing
)

// attack is a technique in the hands of some pods.
type attack struct {
	group, name string
	from        string // actors, with blanks between
	how, detail string
	stands      string // what stands in the way
	families    string // "46" if empty
	when        phase  // with, if zero
	control     control
	// byNode says that a node is in between, which may refuse what leads nowhere: its own ports are open to its pods.
	byNode bool
	// allowed says that policy lets it through, and it must.
	allowed bool
	// aim lists what to shoot at.
	aim func(v view) []job.Job
}

// view is what an attacker knows: everything.
type view struct {
	home, away *place
	me         pod
	family     int
}

func (a attack) familiesOf() []int {
	switch a.families {
	case "4":
		return []int{four}
	case "6":
		return []int{six}
	}
	return []int{four, six}
}

// shot is a job with what came of it in each phase.
type shot struct {
	attack *attack
	from   string
	family int
	jobs   [phaseCount]job.Job
	tries  [phaseCount]*outcome
}

// outcome is what came of a job.
type outcome struct {
	result  job.Result
	arrived string // where and as what; empty: nowhere
}

func (o *outcome) through() string {
	if o == nil {
		return ""
	}
	if o.arrived != "" {
		return o.arrived
	}
	return o.result.Answered
}

// aimed makes an attack's jobs of a pod.
func (a *attack) aimed(home, away *place, from string) []*shot {
	var shots []*shot
	for _, family := range a.familiesOf() {
		v := view{home: home, away: away, me: home.pods[from], family: family}
		for _, j := range a.aim(v) {
			if j.To == "" {
				continue
			}
			if j.How == "" {
				j.How = a.how
			}
			if j.Detail == "" {
				j.Detail = a.detail
			}
			s := &shot{attack: a, from: from, family: family}
			for p := range s.jobs {
				s.jobs[p] = j
				s.jobs[p].Token = newToken()
			}
			if a.control == honest {
				s.jobs[without].Claim = ""
			}
			shots = append(shots, s)
		}
	}
	return shots
}

func newToken() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // never fails
	return "EVADE-" + hex.EncodeToString(b[:])
}

// verdict of a shot.
type verdict int

const (
	held verdict = iota
	gotThrough
	refused   // by the pod's own kernel
	untried   // its control doesn't work either, or it couldn't be sent
	works     // it is allowed, and arrives
	shutWrong // it is allowed, and doesn't
	never     // nothing arrives, policy or not, as expected
)

func (v verdict) String() string {
	return [...]string{"held", "GOT THROUGH", "refused by the kernel", "could not be tried", "works, as it may", "DOESN'T WORK, though it may", "never arrives"}[v]
}

// judge says what came of a shot, and why.
func (s *shot) judge() (verdict, string) {
	when := s.attack.phase()
	try, before := s.tries[when], s.tries[without]
	if try == nil {
		return untried, "nobody tried"
	}
	through := try.through()
	if s.attack.byNode && strings.HasPrefix(through, "refused by") {
		through = ""
	}
	switch {
	case s.attack.allowed && through != "":
		return works, through
	case s.attack.allowed:
		return shutWrong, "nothing arrived " + try.result.Err
	case through != "":
		return gotThrough, through
	case try.result.Refused:
		return refused, try.result.Err
	case try.result.Err != "":
		return untried, try.result.Err
	case before.through() == "" && s.attack.control == nothing:
		return never, ""
	case before.through() == "":
		return untried, "nothing arrives without policies either"
	}
	return held, before.through()
}

func (a *attack) phase() phase {
	if a.when == without {
		return with
	}
	return a.when
}

// target says what a shot was aimed at, for people.
func (s *shot) target() string {
	return fmt.Sprintf("%s (IPv%d)", s.jobs[with].At, map[int]int{four: 4, six: 6}[s.family])
}
