// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package intake takes in what the operator's relay streams, and keeps the last of it on disk.
//
//	relay ──batches──► relay.State ──changes──► tables (records)
//	                        │
//	                        └──now and then──► snapshot on disk ──at the next start──► relay.State
//
// So a node that restarts while the operator, the API server and the shared etcd are all down still knows the mesh.
package intake
