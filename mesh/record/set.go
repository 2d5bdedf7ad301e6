// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"bytes"
	"fmt"
	"slices"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Set holds encoded records by key: what a cluster wants to publish, or what lies in the store.
type Set map[string][]byte

// NewSet keys and encodes records. Two records with one key are an error: one would silently shadow the other.
func NewSet(records ...*recordv1.Record) (Set, error) {
	set := make(Set, len(records))
	for _, rec := range records {
		key, err := Key(rec)
		if err != nil {
			return nil, fmt.Errorf("key a record of cluster %q: %w", rec.GetCluster(), err)
		}
		if _, twice := set[key]; twice {
			return nil, fmt.Errorf("record %s: given twice", key)
		}
		if set[key], err = Marshal(rec); err != nil {
			return nil, fmt.Errorf("record %s: %w", key, err)
		}
	}
	return set, nil
}

// Delta is what turns one Set into another.
type Delta struct {
	Put    Set
	Delete []string // sorted
}

// Empty tells whether there is nothing to do.
func (d Delta) Empty() bool { return len(d.Put) == 0 && len(d.Delete) == 0 }

// Diff gives what must be put and deleted to make from equal to to. It compares encoded bytes.
func Diff(from, to Set) Delta {
	d := Delta{Put: Set{}}
	for key, value := range to {
		if have, ok := from[key]; !ok || !bytes.Equal(have, value) {
			d.Put[key] = value
		}
	}
	for key := range from {
		if _, ok := to[key]; !ok {
			d.Delete = append(d.Delete, key)
		}
	}
	slices.Sort(d.Delete)
	return d
}

// Apply changes the set in place.
func (s Set) Apply(d Delta) {
	for key, value := range d.Put {
		s[key] = value
	}
	for _, key := range d.Delete {
		delete(s, key)
	}
}
