// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy turns network policies of every dialect into the entries that the datapath looks verdicts up in.
//
//	spec JSON ── decode (networkpolicy.go, meshpolicy.go) ──► model: subjects, rules, isolation
//	          ── resolve (index.go, cidr.go, ports.go)    ──► identities, CIDR identities, port prefixes
//	          ── emit (emit.go)                           ──► Result: subjects and entries, each with its rule
//
// Result.Evaluate looks a verdict up exactly as bpf/lib/policy.h does; tests, the CLI and whoever wants to know "what if"
// use it. A new dialect is a decoder and nothing else.
//
// How policies add up, for one pod and direction:
//
//   - No policy selects it: everything is allowed.
//   - A policy that isolates it (NetworkPolicy always; ours unless defaultAction is Allow) denies what no rule allows.
//   - Allowed is what any enforcing policy allows; a deny rule of any enforcing policy wins over every allow.
//   - Policies in Audit mode change nothing that enforcing ones decide. Where one would deny what otherwise passes, the
//     verdict is AuditDeny: let through, and reported.
//   - A policy that can't be understood isolates its subjects and allows nothing; a deny rule of it that can't be
//     understood denies everything. Opening what somebody meant to close is the one mistake that must not happen.
//
// Two kinds of traffic never reach these entries: packets between a node and its own pods always pass, packets of
// unknown identity never do.
//
// The package is pure. Equal input gives equal output, rule ids included, on every node.
package policy
