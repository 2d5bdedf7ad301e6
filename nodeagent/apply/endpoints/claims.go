// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"slices"

	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// leftHooks are the programs that stay on interfaces whose pods have no record any more. Nobody is behind such an interface
// as far as the maps know, so its packets are dropped, until the interface is gone or another pod's.
func (f *Finder) leftHooks() map[table.Hook]table.Attachment {
	for _, p := range f.known {
		if p.found {
			delete(f.left, uint32(p.link.Index))
		}
	}
	hooks := map[table.Hook]table.Attachment{}
	_, present := f.Interfaces()
	for index, name := range f.left {
		if !present[index] {
			delete(f.left, index)
			continue
		}
		hooks[table.Hook{Role: table.RolePod, Ifindex: index}] = table.Attachment{Name: name}
	}
	return hooks
}

// contest finds pods that may not have the interface that answers for them, because it answers for another one too: an address
// was used again while the former pod's record is still there. The interface is the pod's that never had another one, if
// there is exactly one such pod; else nobody's, until a record goes. It returns the other pod's key.
func (f *Finder) contest() map[*pod]string {
	claims := map[int][]string{}
	for key, p := range f.known {
		if p.found {
			claims[p.link.Index] = append(claims[p.link.Index], key)
		}
	}
	out := map[*pod]string{}
	for _, keys := range claims {
		if len(keys) < 2 {
			continue
		}
		slices.Sort(keys)
		owner := f.owner(keys)
		for n, key := range keys {
			switch {
			case key == owner:
			case owner != "":
				out[f.known[key]] = owner
			default:
				out[f.known[key]] = keys[(n+1)%len(keys)]
			}
		}
	}
	return out
}

// owner is the one of several pods that never had another interface; empty if that isn't one.
func (f *Finder) owner(keys []string) (owner string) {
	for _, key := range keys {
		if f.known[key].moved {
			continue
		}
		if owner != "" {
			return ""
		}
		owner = key
	}
	return owner
}
