// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"strings"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Policy is a policy object in the dialect it was written in. What its spec means is read by mesh/policy.
type Policy struct {
	PolicyKind      string // one of v1alpha1.PolicyKinds
	Namespace, Name string // the namespace is empty for cluster-scoped kinds
	Spec            []byte // the object's spec as JSON
	Provenance      Provenance
	Generation      int64
	UID             string // of the object; empty from operators that don't say
	Mode            Mode   // that others than its spec give it
}

// Provenance says where an object came from.
type Provenance struct {
	Source   string // PolicySource as namespace/name; empty for objects applied by hand
	URL      string // of the repository
	Revision string // branch@sha1:commit, as Flux writes it
	Path     string // file within the repository
}

// Kind is KindPolicy.
func (*Policy) Kind() string { return KindPolicy }

func (p *Policy) path() (string, error) {
	kind, known := v1alpha1.PolicyKindNamed(p.PolicyKind)
	if !known {
		return "", reject(ReasonInvalidPolicy, "policy.kind", "unknown kind %q", short(p.PolicyKind))
	}
	if err := checkSubdomain("policy.name", p.Name); err != nil {
		return "", err
	}
	namespace := p.Namespace
	switch {
	case !kind.Namespaced && namespace != "":
		return "", reject(ReasonInvalidPolicy, "policy.namespace", "%s has no namespace", p.PolicyKind)
	case !kind.Namespaced:
		namespace = "-"
	default:
		if err := checkLabel("policy.namespace", namespace); err != nil {
			return "", err
		}
	}
	return strings.Join([]string{p.PolicyKind, namespace, p.Name}, "/"), nil
}

type policyReader struct{ *recordv1.Policy }

func (r policyReader) names() Object {
	return &Policy{PolicyKind: r.GetKind(), Namespace: r.GetNamespace(), Name: r.GetName()}
}

// parse takes any spec: a policy that can't be understood must still isolate its pods, which mesh/policy sees to.
func (r policyReader) parse() (Object, error) {
	from := r.GetProvenance()
	return &Policy{
		PolicyKind: r.GetKind(), Namespace: r.GetNamespace(), Name: r.GetName(), Spec: r.GetSpecJson(), Generation: r.GetGeneration(),
		UID: r.GetUid(),
		Mode: Mode{
			ByNamespace: r.GetAuditedByNamespace() && r.GetNamespace() != "", ByCluster: r.GetAuditedByCluster(), Problem: r.GetModeProblem(),
		},
		Provenance: Provenance{Source: from.GetSource(), URL: from.GetUrl(), Revision: from.GetRevision(), Path: from.GetPath()},
	}, nil
}

// check doesn't compile the policy: dialects grow, and a reader that doesn't know a field must say so per policy.
func (p *Policy) check(Claim) error {
	const field = "policy.spec_json"
	if len(p.Spec) > maxPolicy {
		return reject(ReasonTooLarge, field, "has %d bytes, more than %d", len(p.Spec), maxPolicy)
	}
	if !json.Valid(p.Spec) || !strings.HasPrefix(strings.TrimLeft(string(p.Spec), " \t\r\n"), "{") {
		return reject(ReasonInvalidPolicy, field, "not a JSON object")
	}
	for _, s := range []string{p.Provenance.Source, p.Provenance.URL, p.Provenance.Revision, p.Provenance.Path} {
		if err := checkText("policy.provenance", s); err != nil {
			return err
		}
	}
	if err := checkText("policy.mode_problem", p.Mode.Problem); err != nil {
		return err
	}
	return checkText("policy.uid", p.UID)
}
