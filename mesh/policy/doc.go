// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy turns network policies of every dialect into what the datapath decides by.
//
//	record.Policy ── Parse (decode.go, a file for each dialect) ──► Model: subjects, rules, isolation
//	Models, identities, clusters, named ports, subjects ── Engine.Step ──► Delta: rows of the datapath's maps
//
// The Engine is incremental: it keeps which identities are in which peer sets (peerset.go, family.go, cidr.go), which
// classes these make (class.go), and which lines subjects with the same policies share (profile.go, group.go), and changes
// what a change touches. docs/decisions/0005 says what the maps mean, Delta in which order they are written so that a packet
// meets the old policy or the new one.
//
// Reference (evaluate.go, views.go, explain.go) decides single connections straight from the rules. Tests hold the Engine's maps
// against it; it is what explains a verdict. Those with the build tag datapath hold the kernel's programs against both (make fuzz).
// A new dialect is a decoder, and a line in dialects.
//
// Connections are judged in tiers (tiers.go; docs/decisions/0010): by the policies of Admin in their order, which may accept,
// deny or pass; then by those of namespaces; and by those of Baseline in their order where the others have no say.
//
// How policies of namespaces add up, for one pod and direction:
//
//   - No policy selects it: everything is allowed that Baseline doesn't deny.
//   - A policy that isolates it (NetworkPolicy always; ours unless defaultAction is Allow) denies what no rule allows.
//   - Allowed is what any enforcing policy allows; a deny rule of any enforcing policy wins over every allow.
//
// In all tiers:
//
//   - Policies in Audit mode change nothing that enforcing ones decide. What these let through is asked about again, with
//     all policies as if they enforced: where that denies, the verdict is AuditDeny: let through, and reported.
//   - A policy that its namespace or its cluster has audited (mode.go; docs/decisions/0015) is in Audit mode but for its allows,
//     which count.
//   - A policy that can't be understood isolates its subjects (in Admin and Baseline: denies everybody at its place) and
//     allows nothing; a deny rule of it that can't be understood denies everything. Opening what somebody meant to close is
//     the one mistake that must not happen.
//   - Whether a pod meets a requirement on a label that identities leave out is unknown, whatever the operator. A policy
//     whose subjects are selected so selects all pods that may be meant: it isolates them as it says, its deny rules apply to
//     them, its allow rules don't. As a peer, an allow rule means nobody by such a selector, and a deny rule all who may be
//     meant. The policy has a warning then.
//   - A pass in Admin of which nobody knows whether it means a connection denies it, for the tiers may decide otherwise.
//
// A policy may have several specs, each with subjects of its own (cilium.go): a Model holds the others in more, and the Engine has
// an installed policy for each.
//
// Two kinds of traffic are never judged by policies: packets between a node and its own pods always pass, packets of
// unknown identity never do. What has no room in a map is closed, never open: see Engine.Problems.
//
// The package is pure. Rules have the same ids on every node; the numbers of sets, classes and groups are each node's own,
// and depend on what it held before.
package policy
