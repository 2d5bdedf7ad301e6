// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
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

// Labels that Flux's kustomize-controller puts on what it applies.
const (
	labelKustomizationName      = "kustomize.toolkit.fluxcd.io/name"
	labelKustomizationNamespace = "kustomize.toolkit.fluxcd.io/namespace"
)

// provenance says where a policy came from: from the marks that Fairlead's own GitOps leaves, or from those of a Flux
// Kustomization, whose revision is looked up by name. Nil: applied by hand.
func provenance(p Policy, kustomizations map[nsName]Kustomization) *recordv1.Provenance {
	if name := p.Labels[v1alpha1.LabelSourceName]; name != "" {
		return &recordv1.Provenance{
			Source:   p.Labels[v1alpha1.LabelSourceNamespace] + "/" + name,
			Url:      p.Annotations[v1alpha1.AnnotationSourceURL],
			Revision: p.Annotations[v1alpha1.AnnotationSourceRevision],
			Path:     p.Annotations[v1alpha1.AnnotationSourcePath],
		}
	}
	if k, ok := kustomizationOf(p); ok {
		from := kustomizations[k]
		return &recordv1.Provenance{
			Source: "Kustomization/" + k.namespace + "/" + k.name, Url: from.URL, Revision: from.Revision, Path: from.Path,
		}
	}
	return nil
}

func kustomizationOf(p Policy) (nsName, bool) {
	k := nsName{p.Labels[labelKustomizationNamespace], p.Labels[labelKustomizationName]}
	return k, k.name != ""
}

// KustomizationName names a Flux Kustomization.
type KustomizationName struct{ Namespace, Name string }

// Kustomizations lists the Flux Kustomizations that policies came from.
func (s *State) Kustomizations() []KustomizationName {
	names := make([]KustomizationName, 0, len(s.policiesBySync))
	for k := range s.policiesBySync {
		names = append(names, KustomizationName{k.namespace, k.name})
	}
	return names
}

// Kustomization is what is known of a Flux Kustomization that applies policies.
type Kustomization struct{ URL, Revision, Path string }
