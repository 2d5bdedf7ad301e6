// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Kinds of policies that are understood.
const (
	KindNetworkPolicy            = v1alpha1.KindNetworkPolicy
	KindMeshNetworkPolicy        = v1alpha1.KindMeshNetworkPolicy
	KindClusterMeshNetworkPolicy = v1alpha1.KindClusterMeshNetworkPolicy
)

// Input is all that verdicts depend on.
type Input struct {
	Cluster    string                       // the local one
	Clusters   map[string]map[string]string // cluster → its labels
	Identities map[uint32]map[string]string // of all clusters; labels as identity.PodLabels makes them

	// Subjects are the identities to compile for: those of the node's pods. Nil: every identity of the local cluster.
	Subjects map[uint32]struct{}
	// NamedPorts of the pods of an identity: "name/TCP" → numbers. Pods that share an identity may differ.
	NamedPorts map[uint32]map[string][]uint16
	Policies   []*recordv1.Policy
	// PreviousCIDRs is Result.CIDRs of the compilation before, so that CIDRs keep their identities.
	PreviousCIDRs map[netip.Prefix]uint32
}

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

// Verdict of an entry, numbered as the datapath's.
type Verdict uint8

// Verdicts. AuditDeny lets pass and reports.
const (
	Allow     Verdict = 1
	Deny      Verdict = 2
	AuditDeny Verdict = 3
)

func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case AuditDeny:
		return "audit-deny"
	}
	return "none"
}

// SubjectKey names one direction of the pods of an identity.
type SubjectKey struct {
	Identity uint32
	Dir      Direction
}

// Subject says what holds where no entry matches. An identity without a Subject is not selected by any policy.
type Subject struct {
	Isolated    bool
	Audit       bool   // the default deny only reports
	DefaultRule uint32 // blamed for what the default denies; 0 if not isolated
	// PortPrefixes has bit L set if some entry of this subject has PortPrefix L (bit 0: any port).
	PortPrefixes uint32
	// Prefixes is the same for each of the four kinds of entries (see LookupKind).
	Prefixes [4]uint32
}

// LookupKind says which parts of an entry's key are wildcards.
type LookupKind uint8

// Kinds of lookups, numbered as the datapath's enum policy_kind.
const (
	PeerProto       LookupKind = 0
	PeerAnyProto    LookupKind = 1
	AnyPeerProto    LookupKind = 2
	AnyPeerAnyProto LookupKind = 3
)

// EntryKey is what an entry matches.
type EntryKey struct {
	Subject    uint32
	Peer       uint32 // 0: any
	Port       uint16 // destination, host order; the low 16-PortPrefix bits are zero
	PortPrefix uint8  // 0: any port … 16: exactly Port
	Proto      uint8  // 0: any
	Dir        Direction
}

// Kind of lookup that finds the entry.
func (k EntryKey) Kind() LookupKind {
	var kind LookupKind
	if k.Proto == 0 {
		kind |= 1
	}
	if k.Peer == 0 {
		kind |= 2
	}
	return kind
}

// Entry is what holds for what matches. The highest precedence wins, a deny wins among equals.
type Entry struct {
	Precedence uint32
	Rule       uint32
	Verdict    Verdict
}

// RuleKind says what a rule does.
type RuleKind string

// Kinds of rules.
const (
	RuleAllow   RuleKind = "allow"
	RuleDeny    RuleKind = "deny"
	RuleIsolate RuleKind = "isolate" // the policy denies what nothing allows
	// RuleUnknownSubject isolates pods whose identity's labels are not known (yet): no policy can be matched.
	RuleUnknownSubject RuleKind = "unknown-subject"
)

// Rule is what a verdict can be blamed on.
type Rule struct {
	ID         uint32
	PolicyKey  string // as Key gives it; empty for RuleUnknownSubject
	Kind       RuleKind
	Namespace  string
	Name       string
	Direction  Direction
	Index      int    // in the policy's list of that direction and kind; -1 for isolation
	Text       string // readable
	Audit      bool   // of a policy in Audit mode
	Provenance *recordv1.Provenance
}

// Problem is something about a policy that its author should know.
type Problem struct {
	PolicyKey string
	Message   string
}

// Result of a compilation.
type Result struct {
	Subjects map[SubjectKey]Subject
	Entries  map[EntryKey]Entry
	// CIDRs that policies name, with their node-local identities. Write them (topology.WithPolicyCIDRs) before the entries.
	CIDRs map[netip.Prefix]uint32
	// Rules by id: those of every policy, whether or not it has a subject here, so that ids are the same on every node.
	Rules map[uint32]Rule
	// Isolation lists the rules that isolate a subject, the one in DefaultRule first.
	Isolation map[SubjectKey][]uint32
	// PolicySubjects counts, for each policy that applies to this cluster, the subjects it selects.
	PolicySubjects map[string]int
	Problems       []Problem // sorted by policy
}

// Key names a policy within its cluster: kind/namespace/name, with - for no namespace.
func Key(p *recordv1.Policy) string {
	ns := p.GetNamespace()
	if ns == "" {
		ns = "-"
	}
	return p.GetKind() + "/" + ns + "/" + p.GetName()
}
