// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controllers writes the status of Fairlead's objects.
//
//	cache, federate.Overview, federate.Status ── gather (status.go) ──► Facts ── pure functions ──► status ── if changed ──► API
//
// One loop on the leader does it, woken by whatever changed and at most a few times a second: every status here sums up
// many objects, so a reconciler for each object would read the same things over and over.
package controllers
