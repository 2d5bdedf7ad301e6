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
// Records lie in plain maps that change batch by batch; whoever plans follows them (FollowRecords), intake alone writes them
// (RecordWriter). Desired rows are read through [Desired] and written through a [Writer], which [Tables] hands to whoever
// plans ([Tables.ForPlan]), looks at the node ([Tables.ForNode]) or drives the tunnel ([Tables.ForTunnel]); statuses are set
// by the one follower of the table. A row is a value: whoever changes one puts a new one.
package table
