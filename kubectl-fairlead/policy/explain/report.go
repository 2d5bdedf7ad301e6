// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package explain says what policies make of a connection that may never have happened: both sides' verdicts, each with the
// rule, policy, file and commit behind it. It is pure and evaluates nothing itself: mesh/policy's Reference does, which agents'
// maps are tested against.
//
//	FROM, TO ── ParseEnd, ParseTarget ──► Explain(world.Mesh) ──► Report ──► render
package explain

import "github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"

// Verdict about a connection.
type Verdict string

// Verdicts. Not known wins over all: what is not known is never called allowed.
const (
	Allowed Verdict = "allowed"
	Audited Verdict = "audited" // allowed; a policy in Audit mode would deny it
	Denied  Verdict = "denied"
	Partly  Verdict = "partly denied" // some of what a service leads to, or some of the ports
	Unknown Verdict = "not known"
)

// Report is the answer.
type Report struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Verdict Verdict `json:"verdict"`
	// Missing is what was needed and could not be read; the verdict is then not known.
	Missing []string `json:"missing,omitempty"`
	// Connections that were judged: one, unless a service leads to several pods or no port was given.
	Connections []Connection `json:"connections"`
	// Notes say what this doesn't judge.
	Notes []string `json:"notes,omitempty"`
}

// Connection is one pair of ends on one port.
type Connection struct {
	From     Party   `json:"from"`
	To       Party   `json:"to"`
	Protocol string  `json:"protocol"`
	Port     uint16  `json:"port,omitempty"`
	ICMPType string  `json:"icmpType,omitempty"` // its name, or the number
	Verdict  Verdict `json:"verdict"`
	Egress   Side    `json:"egress"`
	Ingress  Side    `json:"ingress"`
	// Alike names other destinations of which the same is true, rule by rule.
	Alike []string `json:"alike,omitempty"`
}

// Party is who is at an end.
type Party struct {
	Kind     Kind   `json:"kind"`
	Cluster  string `json:"cluster,omitempty"`
	Name     string `json:"name,omitempty"` // namespace/name of a pod, name of a node
	Node     string `json:"node,omitempty"` // of a pod
	Address  string `json:"address,omitempty"`
	Identity string `json:"identity,omitempty"`
}

// Exemption is why a side is decided without policies.
type Exemption string

// Exemptions.
const (
	ExemptNone      Exemption = ""
	ExemptNotAPod   Exemption = "not-a-pod"       // policies judge pods: nodes, host-network pods and addresses have none
	ExemptSelf      Exemption = "self"            // a pod may always reach itself
	ExemptOwnNode   Exemption = "own-node"        // a node may always reach its pods, and they it unless a rule names it
	ExemptUnvouched Exemption = "unknown-address" // of a cluster's pods, and nobody has it: dropped
)

// Side is what one side's policies say.
type Side struct {
	Verdict Verdict   `json:"verdict"`
	Exempt  Exemption `json:"exempt,omitempty"`
	// PeerSeenAs is whom the other side counts as.
	PeerSeenAs string `json:"peerSeenAs,omitempty"`
	Why        string `json:"why"`
	// Rule that decides, if one does.
	Rule *world.Rule `json:"rule,omitempty"`
	// Passed is the rule of the Admin tier that left the connection to the next one, if one did.
	Passed *world.Rule `json:"passed,omitempty"`
	// Also are the other rules that match.
	Also []world.Rule `json:"also,omitempty"`
	// Enforced says which node enforces this, and from which revisions.
	Enforced *Enforced `json:"enforced,omitempty"`
	Missing  []string  `json:"missing,omitempty"`
}

// Enforced is what a node's agent said that it enforces.
type Enforced struct {
	Node      string   `json:"node"`
	Policies  int      `json:"policies"`
	Revisions []string `json:"revisions,omitempty"`
	// Reported is when, RFC 3339.
	Reported string `json:"reported,omitempty"`
}

// ExitCode of the command: 0 allowed, 1 denied, 2 not known.
func (r Report) ExitCode() int {
	switch r.Verdict {
	case Allowed, Audited:
		return 0
	case Denied, Partly:
		return 1
	case Unknown:
	}
	return 2
}

// sum of verdicts about connections that all may happen.
func sum(all []Connection) Verdict {
	count := map[Verdict]int{}
	for _, c := range all {
		count[c.Verdict]++
	}
	switch {
	case len(all) == 0 || count[Unknown] > 0:
		return Unknown
	case count[Denied] == len(all):
		return Denied
	case count[Denied] > 0:
		return Partly
	case count[Audited] > 0:
		return Audited
	}
	return Allowed
}

// both sides must let a connection pass; one that denies is enough, whatever is not known about the other.
func both(egress, ingress Side) Verdict {
	is := func(v Verdict) bool { return egress.Verdict == v || ingress.Verdict == v }
	switch {
	case is(Denied):
		return Denied
	case is(Unknown):
		return Unknown
	case is(Audited):
		return Audited
	}
	return Allowed
}
