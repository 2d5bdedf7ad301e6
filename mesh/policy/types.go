// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Kinds of policies that are understood.
const (
	KindNetworkPolicy            = v1alpha1.KindNetworkPolicy
	KindMeshNetworkPolicy        = v1alpha1.KindMeshNetworkPolicy
	KindClusterMeshNetworkPolicy = v1alpha1.KindClusterMeshNetworkPolicy
	KindClusterNetworkPolicy     = v1alpha1.KindClusterNetworkPolicy
)

// Direction of a connection, seen from the subject.
type Direction uint8

// Directions.
const (
	Ingress Direction = 0
	Egress  Direction = 1
)

func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// Verdict of a line, numbered as the datapath's.
type Verdict uint8

// Verdicts. AuditDeny lets pass and reports.
const (
	Allow     Verdict = 1
	Deny      Verdict = 2
	AuditDeny Verdict = 3
	// Lines only: Pass goes on with the next tier, AuditAllow and AuditPass settle what is reported.
	Pass       Verdict = 4
	AuditAllow Verdict = 5
	AuditPass  Verdict = 6
)

func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case AuditDeny:
		return "audit-deny"
	case Pass:
		return "pass"
	case AuditAllow:
		return "audit-allow"
	case AuditPass:
		return "audit-pass"
	}
	return "none"
}

// SubjectKey names one direction of the pods of an identity.
type SubjectKey struct {
	Identity uint32
	Dir      Direction
}

// Subject says which lines apply to one direction of the pods of an identity, and what holds where none decides.
type Subject struct {
	Isolated bool
	Audit    bool // the default deny only reports
	Closed   bool // nobody knows what its policies say: the default deny is about the subject's own node as well
	// Blocks says that lines name CIDRs: the CIDR around the peer's address is then looked up, for the sets that it is in.
	Blocks bool
	// Group is never 0, and another one where any field of the subject differs: a flow that remembers it remembers all.
	Group       uint32
	Lines       uint32 // of the group; 0: it has no row
	DefaultRule uint32 // blamed for what the default denies; 0 if not isolated
}

// base is the row without its group.
func (s Subject) base() Subject {
	s.Group, s.Lines = 0, 0
	return s
}

// Line is an element of a group. Lines are scanned in order (docs/decisions/0005 and 0010): the first deny or allow that
// matches decides, a pass goes on behind its tier, lines of audit settle what is reported.
type Line struct {
	Set      uint16 // of peers; 0: everybody
	Proto    uint8  // 0: any
	From, To uint16 // destination ports, host order, inclusive, of ICMP icmp.Port; 0-0: any port, and protocols without ports
	Verdict  Verdict
	Rule     uint32 // of Pass and AuditPass: the number of the chunk to go on with
}

// RuleKind says what a rule does.
type RuleKind string

// Kinds of rules.
const (
	RuleAllow   RuleKind = "allow"
	RuleDeny    RuleKind = "deny"
	RulePass    RuleKind = "pass"    // the next tier decides
	RuleUnclear RuleKind = "unclear" // a pass that may not mean the connection: denies
	RuleIsolate RuleKind = "isolate" // the policy denies what nothing allows
	// RuleUnknownSubject isolates pods with an identity of unknown labels (yet): no policy can be matched.
	RuleUnknownSubject RuleKind = "unknown-subject"
	// RuleNoRoom isolates pods with policies that have no room in the datapath's maps.
	RuleNoRoom RuleKind = "no-room"
)

// Rule is what a verdict can be blamed on.
type Rule struct {
	ID         uint32
	PolicyKey  string // as Model.Key gives it; empty for built-in rules
	Kind       RuleKind
	Tier       Tier
	Namespace  string
	Name       string
	Direction  Direction
	Index      int    // in the policy's list of that direction and kind; -1 for isolation
	Text       string // readable
	Audit      bool   // of a policy in Audit mode
	Provenance record.Provenance
}

// Problem is something about a policy that its author should know, or about the node that its administrator should.
type Problem struct {
	PolicyKey string // empty if it is about no single policy
	Message   string
	Warning   bool // the policy is valid, and can't be enforced quite as its author meant it
}
