// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

func identityRef(n uint32) ref { return ref{kind: record.KindIdentity, name: identityName(n)} }

// SetIdentity sets a number's meaning; nil labels remove it.
func (s *State) SetIdentity(number uint32, labels map[string]string) {
	was, known := s.identities[number]
	if known {
		canonical := identity.Canonical(was)
		if s.numbers[canonical] == number {
			delete(s.numbers, canonical)
		}
		s.touchPods(canonical)
	}
	if labels == nil {
		delete(s.identities, number)
	} else {
		s.identities[number] = labels
		s.name(number, labels)
	}
	if known {
		s.nameTwin(was)
	}
	s.touch(identityRef(number))
}

// nameTwin lets another number with the label set of one that is gone count in its place, if pods need one: nobody allocates
// a number for a label set that has one.
func (s *State) nameTwin(labels map[string]string) {
	canonical := identity.Canonical(labels)
	if _, has := s.numbers[canonical]; has || len(s.podsByLabels[canonical]) == 0 {
		return
	}
	for other, set := range s.identities {
		if maps.Equal(set, labels) {
			s.name(other, set)
		}
	}
}

// name notes that a label set has a number. Of two numbers with the same set the lower one counts, in every replica.
func (s *State) name(number uint32, labels map[string]string) {
	if s.claim == nil || !s.claim.OwnsIdentity(number) {
		return
	}
	canonical := identity.Canonical(labels)
	if other, ok := s.numbers[canonical]; ok && other <= number {
		return
	}
	s.numbers[canonical] = number
	s.touchPods(canonical)
}

func (s *State) touchPods(canonical string) {
	for k := range s.podsByLabels[canonical] {
		s.touch(ref{kind: record.KindEndpoint, namespace: k.namespace, name: k.name})
	}
}

func (s *State) rebuildNumbers() {
	clear(s.numbers)
	for n, labels := range s.identities {
		s.name(n, labels)
	}
}

// unnumbered says whether a pod waits for its label set to get a number.
func (s *State) unnumbered(k nsName) bool {
	p := s.pods[k]
	if p == nil || p.canonical == "" || !wantsIdentity(p.pod) {
		return false
	}
	_, has := s.numbers[p.canonical]
	return !has
}

// Unnumbered lists the label sets of endpoints that have no number yet, in a stable order.
func (s *State) Unnumbered() []map[string]string {
	var keys []string
	for canonical := range s.podsByLabels {
		if _, ok := s.numbers[canonical]; !ok && s.endpointWith(canonical) != nil {
			keys = append(keys, canonical)
		}
	}
	slices.Sort(keys)
	sets := make([]map[string]string, 0, len(keys))
	for _, k := range keys {
		sets = append(sets, s.endpointWith(k))
	}
	return sets
}

// endpointWith gives the labels of any pod of a label set that is an endpoint, or nil. A pod gets its number before it
// has an address: by the time it has one, everybody knows who it is.
func (s *State) endpointWith(canonical string) map[string]string {
	for k := range s.podsByLabels[canonical] {
		if p := s.pods[k]; wantsIdentity(p.pod) {
			return p.labels
		}
	}
	return nil
}

// Identities gives every number and its label set.
func (s *State) Identities() map[uint32]map[string]string { return maps.Clone(s.identities) }

// InUse says whether a pod has the label set that a number stands for.
func (s *State) InUse(number uint32) bool {
	labels, ok := s.identities[number]
	if !ok {
		return false
	}
	canonical := identity.Canonical(labels)
	return s.numbers[canonical] == number && len(s.podsByLabels[canonical]) > 0
}
