// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package table is what the agent knows and wants, in memory: the tables that the agent's parts meet in.
//
//	intake ──► records (clusters, nodes, identities, endpoints, services, slices, policies)
//	                │  plan reads a snapshot of them
//	                ▼
//	          desired rows (policy, addresses, services, peers, …), each with a status
//	                │  apply follows their changes, writes the kernel, sets the status
//	                ▼
//	          flow, report and the status socket read both sides
//
// A row is a value: whoever changes one inserts a new one. Records are written by intake alone. Desired rows are read
// through [Desired] and written through a [Writer], which [Tables] hands to whoever plans ([Tables.ForPlan]), looks at the
// node ([Tables.ForNode]) or drives the tunnel ([Tables.ForTunnel]); statuses are set by the one follower of the table.
package table
