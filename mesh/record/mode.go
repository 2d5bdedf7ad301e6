// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Mode is what a policy's namespace and its cluster make of its mode. The weaker word holds: nobody can have a policy enforced
// that another one has audited. docs/decisions/0015 has the reasons.
type Mode struct {
	ByNamespace, ByCluster bool   // it is audited
	Problem                string // what was said and isn't heeded; the policy is then as if it had not been
}

// Audit says whether the policy is audited, whatever its spec says.
func (m Mode) Audit() bool { return m.ByNamespace || m.ByCluster }

// NamespaceMode is what a namespace says of its own policies.
type NamespaceMode struct {
	Audit   bool
	Problem string
}

// ReadNamespaceMode reads a namespace's annotation. What is not understood is as if it was not there, so policies enforce.
func ReadNamespaceMode(name string, labels, annotations map[string]string) NamespaceMode {
	const key = v1alpha1.AnnotationPolicyMode
	says, annotated := annotations[key]
	_, labelled := labels[key]
	switch {
	case says == string(v1alpha1.PolicyAudit):
		return NamespaceMode{Audit: true}
	case annotated && says != string(v1alpha1.PolicyEnforce):
		// Shortened and quoted: a value may be long, and hold anything.
		return NamespaceMode{Problem: fmt.Sprintf("namespace %s: the annotation %s is %.40q, which is neither Enforce nor Audit; it changes no policy's mode", name, key, says)}
	case labelled && !annotated:
		return NamespaceMode{Problem: fmt.Sprintf("namespace %s: %s is a label there, and counts as an annotation only; it changes no policy's mode", name, key)}
	}
	return NamespaceMode{}
}

// ModeOf is the mode that others than its spec give a policy. A namespace has a say in its own policies only: who may write
// its annotations must not be able to weaken what holds for the cluster.
func ModeOf(namespace string, says NamespaceMode, cluster v1alpha1.PolicyMode) Mode {
	m := Mode{ByCluster: cluster == v1alpha1.PolicyAudit}
	if namespace != "" {
		m.ByNamespace, m.Problem = says.Audit, says.Problem
	}
	return m
}
