// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/fairlead-mesh/fairlead/mesh/identity"

// Decision is what becomes of a connection.
type Decision struct {
	Verdict Verdict
	Rule    uint32 // in Result.Rules; 0 if no rule was needed
	// ByDefault says that no entry matched: the subject's isolation (or its lack) decided.
	ByDefault bool
}

// Passes says whether the connection is let through.
func (d Decision) Passes() bool { return d.Verdict != Deny }

// Evaluate looks up what becomes of a connection between a subject and its peer. port is the destination's, whichever
// side that is; 0 for protocols without. It mirrors bpf/lib/policy.h lookup by lookup.
func (r *Result) Evaluate(subject, peer uint32, dir Direction, proto uint8, port uint16) Decision {
	switch peer {
	case identity.Unknown:
		return Decision{Verdict: Deny, ByDefault: true}
	case identity.Host: // the subject's own node
		return Decision{Verdict: Allow, ByDefault: true}
	}
	s, selected := r.Subjects[SubjectKey{subject, dir}]
	if !selected {
		return Decision{Verdict: Allow, ByDefault: true}
	}
	best, found := Entry{}, false
	r.candidates(subject, peer, dir, proto, port, func(_ EntryKey, e Entry) {
		if !found || e.beats(best) {
			best, found = e, true
		}
	})
	if found {
		return Decision{Verdict: best.Verdict, Rule: best.Rule}
	}
	d := Decision{Verdict: Allow, ByDefault: true}
	if s.Isolated {
		d.Verdict, d.Rule = Deny, s.DefaultRule
		if s.Audit {
			d.Verdict = AuditDeny
		}
	}
	return d
}

// candidates calls do for the entries that match: {peer, any} × {proto, any} × the prefix lengths in use. Only protocols
// with ports are looked up by port.
func (r *Result) candidates(subject, peer uint32, dir Direction, proto uint8, port uint16, do func(EntryKey, Entry)) {
	s := r.Subjects[SubjectKey{subject, dir}]
	longest := uint8(0)
	if proto == protoTCP || proto == protoUDP || proto == protoSCTP {
		longest = 16
	}
	for kind := range LookupKind(len(s.Prefixes)) {
		key := EntryKey{Subject: subject, Peer: peer, Proto: proto, Dir: dir}
		if kind == PeerAnyProto || kind == AnyPeerAnyProto {
			key.Proto = 0
		}
		if kind == AnyPeerProto || kind == AnyPeerAnyProto {
			key.Peer = 0
		}
		for bits := uint8(0); bits <= longest; bits++ {
			if s.Prefixes[kind]&(1<<bits) == 0 {
				continue
			}
			key.PortPrefix, key.Port = bits, maskPort(port, bits)
			if e, ok := r.Entries[key]; ok {
				do(key, e)
			}
		}
	}
}

// beats compares precedence, then strictness.
func (e Entry) beats(other Entry) bool {
	if e.Precedence != other.Precedence {
		return e.Precedence > other.Precedence
	}
	return e.Verdict.strictness() > other.Verdict.strictness()
}

func (v Verdict) strictness() int {
	switch v {
	case Allow:
		return 1
	case AuditDeny:
		return 2
	}
	return 3
}
