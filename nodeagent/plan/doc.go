// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package plan turns what the tables know into what the kernel should hold.
//
//	clusters, nodes, endpoints ──► Network:  peers, addresses, ranges, routes, this node's pods
//	identities, policies       ──► Policies: entries, subjects, rules, identities of CIDRs
//	one service at a time      ──► Service:  frontends and their slots
//
// These three are pure functions over mesh/topology, mesh/policy and mesh/service, in the kernel's own row types. A
// Planner calls those whose sources changed and sets the desired rows; rows that come out as before stay untouched, so
// the cost of a change downstream is the change.
//
// The package is pure: no network, files, clock, goroutines or logging. What must stay the same over a restart (indexes
// of peers, ids of services, identities of CIDRs) is given to New from what the kernel still holds.
package plan
