// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serve opens the relay to this cluster's node agents.
//
//	certificates.go   the leader keeps a CA and a certificate in a Secret, and the CA in a ConfigMap that agents mount
//	tokens.go         an agent proves which node it runs on by its service account token
//	relay.go          the listener; it opens once it is known which clusters there are
package serve
