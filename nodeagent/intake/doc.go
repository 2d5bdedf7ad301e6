// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package intake takes in what the operator's relay streams, and keeps the last of it on disk.
//
//	relay ──batches──► relay.State (what comes and goes) ──► record.Parse ──► tables (records)
//	                                                                            │ what changed
//	      at the next start: tables ◄── journal on disk ◄──now and then── queue ◄┘
//
// Records are held once, in the tables, parsed. A record that can't be understood counts as absent, and is a problem to
// report. Completeness says what the tables hold everything of, so that what they don't hold may be taken off the kernel.
//
// So a node that restarts while the operator, the API server and the shared etcd are all down still knows the mesh.
package intake
