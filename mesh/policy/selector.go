// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"

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
	out := &selector{match: match, text: match.String()}
	requirements, _ := match.Requirements()
	for _, r := range requirements {
		values := r.ValuesUnsorted()
		if (r.Operator() == selection.In || r.Operator() == selection.Equals) && len(values) == 1 {
			out.key, out.value = r.Key(), values[0]
			break
		}
	}
	return out, nil
}

func (s *selector) matches(l labels.Labels) bool { return s == nil || s.match.Matches(l) }

func (s *selector) String() string {
	if s == nil {
		return ""
	}
	return s.text
}

// unusable names the labels a selector asks for that identities leave out: it can't match what its author meant. wide
// says that it matches more than that, not less.
func (s *selector) unusable() (texts []string, wide bool) {
	if s == nil {
		return nil, false
	}
	requirements, _ := s.match.Requirements()
	for _, r := range requirements {
		why, is := identity.Excluded(r.Key())
		if !is {
			continue
		}
		texts = append(texts, fmt.Sprintf("label %s is not part of a pod's identity, because %s", r.Key(), why))
		wide = wide || r.Operator() == selection.NotIn || r.Operator() == selection.NotEquals || r.Operator() == selection.DoesNotExist
	}
	return texts, wide
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
