// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flow tells who talked with whom and why it was let through or not.
//
//	events of the datapath (numbers) ── Namer: tables ──► mesh/flow.Flow (names) ──► Ring ──► whoever asks
//
// The ring keeps the last few thousand; following it never slows the datapath or other followers down.
package flow
