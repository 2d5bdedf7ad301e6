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
// Records lie in plain maps that change batch by batch; whoever plans follows them (FollowRecords). Desired rows lie in
// statedb's tables. A row is a value: whoever changes one inserts a new one. Records are written by intake alone
// (RecordWriter), desired rows by whoever plans (Set), statuses by the one reconciler of the table (SetStatus).
package table
