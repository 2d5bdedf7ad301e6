// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apply brings the kernel to what the tables want, row by row.
//
//	desired table ──changes──► Follower ──Update/Delete──► Target (a door to the kernel)
//	      ▲                        │
//	      └──────── status ────────┘
//
// A Loop runs followers as steps in a fixed order: what is added or changed goes down the list, what is gone comes up
// from its end. The order is chosen so that each step only needs what stands before it, and so that at no moment
// between two operations more is allowed than before and after. A row that fails is marked, retried with backoff and
// stops nobody else.
//
// On start a follower reads its target once: rows that are already right are only marked done, so that a restart writes
// nothing; what the kernel holds beyond the table is removed, but only when the caller knows the tables are complete.
//
// The packages below (endpoints, policy, routes, services, wireguard) say what each door does; they never import each
// other.
package apply
