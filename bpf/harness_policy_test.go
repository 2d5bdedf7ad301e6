// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import "net/netip"

// line is a policy line as tests write it. Each identity of the cast is a peer set and a class of its own.
type line struct {
	peer     uint32 // identity; 0: everybody
	proto    uint8
	from, to uint16  // to 0: only from
	verdict  Verdict // NONE: allow
	rule     uint32
	ends     bool // no line: the first tier ends here, and with it a chunk
}

// testPolicy is the pod's policy in one direction.
type testPolicy struct {
	flags uint32
	lines []line
}

// knownIdentities are the cast's; the index is the number of both set and class. Class 0 is in no set.
var knownIdentities = []uint32{
	0, podIdentity, friendIdentity, remoteIdentity, blockIdentity, IdentityHost, IdentityWorld,
}

// populatePolicy gives every identity its class and the pod no policy.
func (f *fixture) populatePolicy() {
	f.t.Helper()
	f.must(f.maps.Classes.Put(uint32(0), &ClassSets{}))
	for class, identity := range knownIdentities[1:] {
		f.class(identity, uint32(class+1), uint16(class+1))
	}
	f.policies = map[Direction]*testPolicy{DirEgress: {}, DirIngress: {}}
	f.publish(podIdentity, DirEgress)
	f.publish(podIdentity, DirIngress)
}

// class puts an identity into a class, and that class into sets.
func (f *fixture) class(identity, class uint32, sets ...uint16) {
	f.t.Helper()
	var row ClassSets
	for _, s := range sets {
		row.Sets[s/64] |= 1 << (s % 64)
	}
	f.must(f.maps.Classes.Put(class, &row))
	f.must(f.maps.Identities.Put(identity, &IdentityClass{Class: class}))
}

// publish writes the fixture's policy for a subject, in both banks.
func (f *fixture) publish(subject uint32, dir Direction) {
	f.t.Helper()
	p := f.policies[dir]
	lines := make([]PolicyLine, 0, len(p.lines))
	for _, l := range p.lines {
		if l.ends {
			lines = endChunk(lines)
		} else {
			lines = append(lines, l.compile())
		}
	}
	flags := p.flags
	for _, l := range p.lines {
		if l.peer == blockIdentity {
			flags |= SubjectBlocks
		}
	}
	row := Subject{Flags: flags, Group: f.group(lines), Lines: uint32(len(lines)), DefaultRule: defaultRule}
	for bank := range uint8(2) {
		f.must(f.maps.Subjects.Put(&SubjectKey{Identity: subject, Dir: dir, Bank: bank}, &row))
	}
}

// endChunk adds lines that match nothing until a chunk is full.
func endChunk(lines []PolicyLine) []PolicyLine {
	for len(lines)%GroupLines > 0 {
		lines = append(lines, PolicyLine{PortFrom: 1})
	}
	return lines
}

func (l line) compile() PolicyLine {
	out := PolicyLine{PortFrom: l.from, PortTo: max(l.from, l.to), Proto: l.proto, Verdict: l.verdict, RuleID: l.rule}
	for set, identity := range knownIdentities {
		if identity == l.peer {
			out.Set = uint16(set)
		}
	}
	if out.Verdict == VerdictNone {
		out.Verdict = VerdictAllow
	}
	return out
}

// group writes lines under an id of their own: a group never changes.
func (f *fixture) group(lines []PolicyLine) uint32 {
	f.t.Helper()
	if len(lines) == 0 {
		return 0
	}
	f.lastGroup++
	for chunk, rest := uint32(0), lines; len(rest) > 0; chunk++ {
		var c GroupChunk
		rest = rest[copy(c.Line[:], rest):]
		f.must(f.maps.Groups.Put(&GroupKey{Group: f.lastGroup, Chunk: chunk}, &c))
	}
	return f.lastGroup
}

// isolate makes the pod default-deny in a direction.
func (f *fixture) isolate(dir Direction, flags uint32) {
	f.t.Helper()
	f.policies[dir].flags |= SubjectIsolated | flags
	f.publish(podIdentity, dir)
}

// rule adds a line to the pod's policy. Running flows meet it when the epoch moves.
func (f *fixture) rule(dir Direction, l line) {
	f.t.Helper()
	f.policies[dir].lines = append(f.policies[dir].lines, l)
	f.publish(podIdentity, dir)
}

// removeRules takes all lines from the pod's policy.
func (f *fixture) removeRules(dir Direction) {
	f.t.Helper()
	f.policies[dir].lines = nil
	f.publish(podIdentity, dir)
}

// raiseAddress is what the agent does after an address's row changed.
func (f *fixture) raiseAddress(a netip.Addr) {
	f.t.Helper()
	var epoch uint32
	index := AddressEpochIndex(a)
	f.must(f.maps.AddressEpochs.Lookup(index, &epoch))
	f.must(f.maps.AddressEpochs.Put(index, epoch+1))
}
