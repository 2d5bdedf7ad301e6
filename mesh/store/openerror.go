// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import "fmt"

// Layer is a step of reaching the store, in the order in which they are tried.
type Layer string

// Layers, first to last.
const (
	LayerConfig  Layer = "Config"
	LayerDNS     Layer = "DNS"
	LayerTCP     Layer = "TCP"
	LayerTLS     Layer = "TLS"
	LayerStore   Layer = "Store" // something answers, but not as a working etcd
	LayerVersion Layer = "Version"
	LayerAuth    Layer = "Auth"
)

// OpenError says which layer failed first, where, why, and what to do about it.
type OpenError struct {
	Layer    Layer
	Endpoint string
	Hint     string
	Err      error
}

// Error reads as "shared etcd https://…: TLS: <what happened> (<what to do>)".
func (e *OpenError) Error() string {
	return fmt.Sprintf("shared etcd %s: %s: %v (%s)", e.Endpoint, e.Layer, e.Err, e.Hint)
}

// Unwrap gives the underlying error.
func (e *OpenError) Unwrap() error { return e.Err }
