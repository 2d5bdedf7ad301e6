// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// Policy is a policy object of any dialect.
type Policy struct {
	Kind, Namespace, Name string
	UID                   string
	Generation            int64
	Spec                  any
	Labels, Annotations   map[string]string
}

// PolicyOf takes what export needs from a policy object of a kind.
func PolicyOf(kind v1alpha1.PolicyKind, o v1alpha1.PolicyObject) Policy {
	return Policy{
		Kind: kind.Name, Namespace: o.GetNamespace(), Name: o.GetName(), UID: string(o.GetUID()), Generation: o.GetGeneration(), Spec: kind.Spec(o),
		Labels: o.GetLabels(), Annotations: o.GetAnnotations(),
	}
}
