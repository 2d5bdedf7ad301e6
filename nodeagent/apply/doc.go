// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package apply brings the kernel to what the tables want, row by row.
//
//	desired table ──changes──► Follower ──batches──► Target (a kernel map, a device, …)
//	      ▲                        │
//	      └──────── status ────────┘
//
// A Loop runs followers as steps in a fixed order: what is added or changed goes down the list, what is gone comes up
// from its end. The order is chosen so that each step only needs what stands before it, and so that at no moment
// between two operations more is allowed than before and after. A row that fails is marked, retried with backoff and
// stops nobody else.
//
// On start a follower reads its target once: rows that are already right are only marked done, so that a restart writes
// nothing; what the kernel holds beyond the table is removed, but only when the caller knows that the table is complete, or
// that what this row is about is known ([Removable]).
//
// The packages below (endpoints, policy, routes, services, wireguard) say what each target does; they never import each
// other.
package apply
