// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"maps"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Kinds of objects that apply policies.
const (
	OwnerPolicySource  = "PolicySource"
	OwnerKustomization = "Kustomization" // Flux
	OwnerHelmRelease   = "HelmRelease"   // Flux
	OwnerApplication   = "Application"   // Argo CD
)

// OwnerName names an object that applies policies.
type OwnerName struct{ Kind, Namespace, Name string }

func (n OwnerName) String() string { return n.Kind + " " + n.Namespace + "/" + n.Name }

// Owner is what an object that applies policies says itself of what it applied, and from where.
type Owner struct {
	URL, Revision, Path string
	Policies            map[PolicyName]Applied
}

// PolicyName names a policy object.
type PolicyName struct{ Kind, Namespace, Name string }

// Applied is what an owner says of one policy.
type Applied struct {
	// Path of the file; empty: the owner's Path is all that is known.
	Path string
	// Content is record.SpecContent of what was applied. PolicySources say so, and an entry of theirs that doesn't proves
	// nothing; nobody else does.
	Content string
	// UID of the object. It is empty while the object is being created, and for owners that don't say.
	UID string
}

func (o *Owner) equal(other *Owner) bool {
	if o == nil || other == nil {
		return o == other
	}
	return o.URL == other.URL && o.Revision == other.Revision && o.Path == other.Path && maps.Equal(o.Policies, other.Policies)
}

// SetOwner sets or (nil) removes what an owner says. It costs what the owner lists: policies that claim it in vain are not
// looked at.
func (s *State) SetOwner(name OwnerName, now *Owner) {
	was := s.owners[name]
	if was.equal(now) {
		return
	}
	setOrDelete(s.owners, name, now)
	for _, o := range []*Owner{was, now} {
		if o == nil {
			continue
		}
		for p := range o.Policies {
			if r := p.ref(); s.policiesByClaim[name][r] {
				s.touch(r)
			}
		}
	}
}

// claim is an owner that a policy's labels or annotations name. It says where to look and proves nothing.
type claim struct {
	owner OwnerName
	// vague claims are labels that others than the owner's kind write too: nobody is warned of one that isn't true.
	vague bool
}

// Marks of the tools that apply policies.
const (
	labelKustomizationName      = "kustomize.toolkit.fluxcd.io/name"
	labelKustomizationNamespace = "kustomize.toolkit.fluxcd.io/namespace"
	labelHelmReleaseName        = "helm.toolkit.fluxcd.io/name"
	labelHelmReleaseNamespace   = "helm.toolkit.fluxcd.io/namespace"
	annotationArgoTracking      = "argocd.argoproj.io/tracking-id" // <application>:<group>/<kind>:<namespace>/<name>
	labelInstance               = "app.kubernetes.io/instance"     // how Argo CD tracks if told so, and a usual label of charts

	// argoNamespace is where Applications lie that are named without a namespace.
	argoNamespace = "argocd"
)

// claimsOf lists what a policy claims, the most telling first.
func claimsOf(p Policy) []claim {
	var out []claim
	add := func(kind, namespace, name string, vague bool) {
		if name != "" && namespace != "" {
			out = append(out, claim{OwnerName{kind, namespace, name}, vague})
		}
	}
	add(OwnerPolicySource, p.Labels[v1alpha1.LabelSourceNamespace], p.Labels[v1alpha1.LabelSourceName], false)
	add(OwnerKustomization, p.Labels[labelKustomizationNamespace], p.Labels[labelKustomizationName], false)
	add(OwnerHelmRelease, p.Labels[labelHelmReleaseNamespace], p.Labels[labelHelmReleaseName], false)
	if app, _, ok := strings.Cut(p.Annotations[annotationArgoTracking], ":"); ok {
		namespace, name := application(app)
		add(OwnerApplication, namespace, name, false)
	} else {
		namespace, name := application(p.Labels[labelInstance])
		add(OwnerApplication, namespace, name, true)
	}
	return out
}

// application reads how Argo CD names an Application: <name>, or <namespace>_<name> where that isn't its own namespace.
func application(s string) (namespace, name string) {
	if namespace, name, ok := strings.Cut(s, "_"); ok {
		return namespace, name
	}
	return argoNamespace, s
}

func (p PolicyName) ref() ref {
	return ref{kind: record.KindPolicy, policy: p.Kind, namespace: p.Namespace, name: p.Name}
}

func (r ref) policyName() PolicyName { return PolicyName{r.policy, r.namespace, r.name} }
