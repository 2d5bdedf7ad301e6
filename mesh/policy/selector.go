// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// selector is a compiled label selector. A nil one matches everything.
type selector struct {
	match labels.Selector
	// text identifies the selector: equal texts match equally. Resolved selectors are remembered by it.
	text string
	// key and value are those of a requirement "key = value" if there is one: the index finds candidates by it.
	key, value string
}

// compileSelector returns nil for a selector without requirements.
func compileSelector(s *metav1.LabelSelector) (*selector, error) {
	if s == nil || (len(s.MatchLabels) == 0 && len(s.MatchExpressions) == 0) {
		return nil, nil
	}
	match, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return nil, err
	}
	return newSelector(match), nil
}

func newSelector(match labels.Selector) *selector {
	out := &selector{match: match, text: match.String()}
	requirements, _ := match.Requirements()
	for _, r := range requirements {
		values := r.ValuesUnsorted()
		if (r.Operator() == selection.In || r.Operator() == selection.Equals) && len(values) == 1 {
			out.key, out.value = r.Key(), values[0]
			break
		}
	}
	return out
}

func (s *selector) matches(l labels.Labels) bool { return s == nil || s.match.Matches(l) }

func (s *selector) String() string {
	if s == nil {
		return ""
	}
	return s.text
}

// widened drops what a selector of pods requires of labels that identities leave out, whatever the operator: whether a pod
// meets that is not known, so what is left matches all pods that may be meant. Each such label has a text.
func (s *selector) widened() (wide *selector, texts []string) {
	if s == nil {
		return nil, nil
	}
	requirements, _ := s.match.Requirements()
	var known labels.Requirements
	for _, r := range requirements {
		why, is := identity.Excluded(r.Key())
		if !is {
			known = append(known, r)
			continue
		}
		text := fmt.Sprintf("label %s is not part of a pod's identity, because %s", r.Key(), why)
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	switch len(known) {
	case len(requirements):
		return s, nil
	case 0:
		return nil, texts
	}
	return newSelector(labels.NewSelector().Add(known...)), texts
}

// prefixed is a view of the labels under a prefix, without it: an identity's labels of its namespace.
type prefixed struct {
	prefix string
	all    map[string]string
}

func (p prefixed) Has(key string) bool {
	_, ok := p.all[p.prefix+key]
	return ok
}

func (p prefixed) Get(key string) string { return p.all[p.prefix+key] }

func (p prefixed) Lookup(key string) (string, bool) {
	v, ok := p.all[p.prefix+key]
	return v, ok
}
