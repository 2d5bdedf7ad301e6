// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// leftOut are labels that identities leave out, of those that generated pods have. Whether a pod has one is unknown.
var leftOut = []string{"statefulset.kubernetes.io/pod-name", "pod-template-hash", "fairlead.dev/forged"}

func (o *oracle) seeingAll() *oracle {
	all := *o
	all.omniscient = true
	return &all
}

// truth of a selector for a pod.
type truth int

const (
	no truth = iota
	unknown
	yes
)

// pods says whether a selector of pods means one: no if a requirement that can be judged isn't met, else unknown if one can't
// be judged.
func (o *oracle) pods(s *metav1.LabelSelector, l map[string]string) truth {
	if s == nil || o.omniscient {
		return truthOf(has(s, l))
	}
	rest, left := s.DeepCopy(), false
	for key := range s.MatchLabels {
		if slices.Contains(leftOut, key) {
			delete(rest.MatchLabels, key)
			left = true
		}
	}
	rest.MatchExpressions = slices.DeleteFunc(rest.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		is := slices.Contains(leftOut, r.Key)
		left = left || is
		return is
	})
	out := truthOf(has(rest, l))
	if out == yes && left {
		return unknown
	}
	return out
}

func truthOf(is bool) truth {
	if is {
		return yes
	}
	return no
}
