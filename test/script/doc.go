// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package script tells stories of the whole control path, as txtar files in testdata: Kubernetes objects of several
// clusters go in, and what lies in the maps of the nodes comes out, with faults on the way.
//
//	testdata/*.txtar ── commit ──► Git (real) ──────────────┐
//	        │                                               ▼
//	        └── apply ──► Kubernetes API (in memory) ◄──► operator ──► shared etcd (real) ──► the others' operators
//	                                                                                                │ relay (real)
//	        dump, writes, failing ◄── maps (in memory) ◄── node agent ◄─────────────────────────────┘
//
// Operators and agents are put together as in the binaries (operator/assembly, nodeagent/agent); in memory are only the two
// ends: the Kubernetes API and the kernel. The store is an etcd with TLS and a user for each cluster. The API in memory has
// every kind, counts generations and merges what is applied as an API server does, by field managers, but it admits
// anything: what an API server refuses is tested in operator/gitops, against a real one that knows no pods and nodes.
//
// What `dump NODE policy` prints is what the maps decide, read as the datapath reads them (verdict_test.go): the numbers of
// sets, classes and groups are each node's own and don't show. What has no row prints as dropped.
//
// Before a command looks at the outcome it waits until every part is at rest, so that a story needs no waits of its own.
// `go test ./test/script -update` rewrites the expected outputs; read the diff before you believe it.
package script
