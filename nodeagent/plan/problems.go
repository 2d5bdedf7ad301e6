// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"maps"
	"slices"
)

// problems of each part; a new plan of a part replaces its own.
type problems struct {
	network  []string
	services map[string][]string
}

func (p *problems) service(name string, list []string) {
	if len(list) == 0 {
		delete(p.services, name)
		return
	}
	if p.services == nil {
		p.services = map[string][]string{}
	}
	p.services[name] = list
}

func (p *problems) list() []string {
	out := slices.Clone(p.network)
	for _, name := range slices.Sorted(maps.Keys(p.services)) {
		for _, text := range p.services[name] {
			out = append(out, "service "+name+": "+text)
		}
	}
	return out
}
