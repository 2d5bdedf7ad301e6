// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers writes the status of Fairlead's objects.
//
//	MeshNodes, Nodes, PolicySources, exported policies ── feeds.go ──► ledger (aggregate.Index): sums, and what is due
//	federate.Overview, federate.Status, ClusterMesh, MeshClusters ──┐              │
//	                                           facts.go: gather ◄───┴──────────────┘
//	Facts, sums ── pure functions (mesh.go, cluster.go, policies.go) ──► status ── if changed ──► API
//
// One loop on the leader does it, woken by whatever changed and at most a few times a second. What a pass costs follows the
// number of clusters and nodes, and of policies only those whose sums changed.
package controllers
