// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gitops brings network policies from a repository into the cluster, each marked with the commit and file it
// came from.
//
//	PolicySource → fetch (git.go, artifact.go) → Tree → Parse (parse.go, pure) → objects
//	             → Plan (plan.go, pure): provenance, what to prune → dry-run everything → apply → prune (apply.go)
//	             → conditions, inventory, events (reconciler.go, status.go)
//
// A tree is applied whole or not at all: one broken file leaves the last good state in place.
package gitops
