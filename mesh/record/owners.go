// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"slices"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Owners keeps what only one node of the mesh may have: a WireGuard key and node addresses. A cluster that publishes
// another's key or address would take that node's tunnel away, because both find the peer by it. Who came first keeps
// it; take this cluster's own nodes first, so that nobody can take from them.
//
// Validate judges one record by itself; Owners judges a valid one beside all others.
type Owners struct {
	holder map[string]string   // what is owned → key of the record that owns it
	owned  map[string][]string // record key → what it owns
}

// NewOwners makes an Owners that knows nothing.
func NewOwners() *Owners {
	return &Owners{holder: map[string]string{}, owned: map[string][]string{}}
}

// Take notes what a record owns, in place of what it owned before. If another record owns any of it, the error is an
// *Error with ReasonDuplicate and what the record owned before stays. Records other than nodes own nothing.
func (o *Owners) Take(key string, rec *recordv1.Record) error {
	node := rec.GetNode()
	if node == nil {
		return nil
	}
	wants := slices.Clone(node.GetAddresses())
	if k := node.GetWireguardPublicKey(); k != "" {
		wants = append(wants, k)
	}
	for _, w := range wants {
		if holder, held := o.holder[w]; held && holder != key {
			return reject(ReasonDuplicate, "node", "%s is %s's", w, holder)
		}
	}
	o.Drop(key)
	for _, w := range wants {
		o.holder[w] = key
	}
	o.owned[key] = wants
	return nil
}

// Drop notes that a record is gone.
func (o *Owners) Drop(key string) {
	for _, w := range o.owned[key] {
		delete(o.holder, w)
	}
	delete(o.owned, key)
}
