// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// parse reads the record of a change. An error means that the record counts as absent: nothing stale is trusted in its
// place. A policy's object may come with an error: without it the pods that it is about would be open. A cluster keeps its last
// record: without one its pods would be the world, and be sent to in the clear.
func parse(c *relayv1.Change) (record.Object, error) {
	o, err := record.Parse(c.GetRecord())
	if err != nil {
		return nil, err
	}
	key, err := record.KeyOf(c.GetRecord().GetCluster(), o)
	if err == nil && key != c.GetKey() {
		err = fmt.Errorf("it belongs under %s", key)
	}
	if err != nil && o.Kind() != record.KindPolicy {
		return nil, err
	}
	return o, err
}

// keepsLast says whether the last record of a kind that was understood stands for one that isn't.
func keepsLast(key string) bool { return record.Kind(key) == record.KindCluster }

// maxUnreadable bounds how many records that can't be understood are remembered.
const maxUnreadable = 100

// unreadable are the records that can't be understood, and why.
type unreadable struct {
	why  map[string]error
	more bool // than are remembered
}

func (u *unreadable) set(key string, err error) {
	_, known := u.why[key]
	switch {
	case err == nil:
		delete(u.why, key)
	case !known && len(u.why) == maxUnreadable:
		u.more = true
	default:
		if u.why == nil {
			u.why = map[string]error{}
		}
		u.why[key] = err
	}
}

func (u *unreadable) problems() []string {
	var out []string
	for _, key := range slices.Sorted(maps.Keys(u.why)) {
		effect := "it counts as absent"
		switch {
		case record.Kind(key) == record.KindPolicy:
			effect = "what it can't say stays closed"
		case keepsLast(key):
			effect = "the last one that was stays in force"
		}
		out = append(out, fmt.Sprintf("record %s is not understood, so %s: %v (is the operator newer than this agent?)", key, effect, u.why[key]))
	}
	if u.more {
		out = append(out, fmt.Sprintf("more than %d records are not understood", maxUnreadable))
	}
	return out
}
