// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Labels that Cilium gives pods beside their own.
const (
	ciliumNamespace       = "io.kubernetes.pod.namespace"
	ciliumNamespaceLabels = "io.cilium.k8s.namespace.labels."
	ciliumCluster         = "io.cilium.k8s.policy.cluster"
	ciliumAccount         = "io.cilium.k8s.policy.serviceaccount"
	namespaceName         = "kubernetes.io/metadata.name" // the same on the namespace
)

// endpointSelector is a selector of endpoints in terms of identities' labels.
type endpointSelector struct {
	pods, namespaces               metav1.LabelSelector
	namespace                      string // by its name; one more requirement
	namesNamespaces, namesClusters bool
	reserved                       []string // names of entities; the selector asks for nothing else then
}

// endpoints translates a selector of endpoints, of the policy's subjects or of peers. Its keys may have a prefix that says where a
// label is from.
func (m *Model) endpoints(field string, in *metav1.LabelSelector, subjects bool) (out endpointSelector, err error) {
	requirements := slices.Clone(in.MatchExpressions)
	for _, key := range sortedKeys(in.MatchLabels) {
		value := in.MatchLabels[key]
		if subjects && key == "k8s:"+ciliumNamespace && m.rec.Namespace != "" {
			if value != m.rec.Namespace {
				m.warn(fmt.Sprintf("%s: %s: the policy is about pods of its own namespace %s only; the label is not asked for", field, key, m.rec.Namespace))
			}
			continue
		}
		requirements = append(requirements, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpIn, Values: []string{value}})
	}
	for _, r := range requirements {
		source, key, prefixed := strings.Cut(r.Key, ":")
		if !prefixed {
			source, key = "any", r.Key
		}
		switch source {
		case "any", "k8s":
		case "reserved":
			if r.Operator != metav1.LabelSelectorOpExists && (r.Operator != metav1.LabelSelectorOpIn || len(r.Values) != 1 || r.Values[0] != "") {
				return out, fmt.Errorf("%s: only its presence can be asked for", r.Key)
			}
			out.reserved = append(out.reserved, key)
			continue
		default:
			return out, fmt.Errorf("%s: pods have no labels of source %q here", r.Key, source)
		}
		out.require(key, r)
	}
	if len(out.reserved) > 1 || len(out.reserved) == 1 && len(requirements) > 1 {
		return out, errors.New("reserved labels can't be combined with others")
	}
	return out, nil
}

// require adds a requirement on a label, under the name that it has in identities.
func (s *endpointSelector) require(key string, r metav1.LabelSelectorRequirement) {
	to := &s.pods
	switch label, ofNamespace := strings.CutPrefix(key, ciliumNamespaceLabels); {
	case key == ciliumNamespace && s.namespace == "" && r.Operator == metav1.LabelSelectorOpIn && len(r.Values) == 1 && r.Values[0] != "":
		s.namespace, s.namesNamespaces = r.Values[0], true // is found faster
		return
	case key == ciliumNamespace:
		to, key, s.namesNamespaces = &s.namespaces, namespaceName, true
	case ofNamespace:
		to, key, s.namesNamespaces = &s.namespaces, label, true
	case key == ciliumCluster:
		key, s.namesClusters = identity.LabelCluster, true
	case key == ciliumAccount:
		key = identity.LabelServiceAccount
	}
	r.Key = key
	to.MatchExpressions = append(to.MatchExpressions, r)
}
