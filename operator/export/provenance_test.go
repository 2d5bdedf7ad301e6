// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

var web = PolicyName{v1alpha1.KindMeshNetworkPolicy, "shop", "web"}

// webPolicy is the policy web for pods of an app, with labels and annotations as who wrote it liked.
func webPolicy(uid, app string, labels, annotations map[string]string) Policy {
	return policyOf(&v1alpha1.MeshNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: types.UID(uid), Labels: labels, Annotations: annotations},
		Spec:       v1alpha1.MeshNetworkPolicySpec{PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
	})
}

func contentOf(t *testing.T, p Policy) string {
	t.Helper()
	spec, err := json.Marshal(p.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return record.SpecContent(spec)
}

func ours() map[string]string {
	return map[string]string{v1alpha1.LabelSourceName: "policies", v1alpha1.LabelSourceNamespace: "fairlead-system"}
}

// forgedMarks are annotations as Fairlead writes them, with what somebody likes to be believed.
func forgedMarks() map[string]string {
	return map[string]string{
		v1alpha1.AnnotationSourceURL: "https://git/forged", v1alpha1.AnnotationSourceRevision: "main@sha1:f", v1alpha1.AnnotationSourcePath: "forged.yaml",
	}
}

// Provenance is what the owner says of the policy. What the policy says of itself only says which owner to ask.
func TestProvenanceIsWhatTheOwnerSays(t *testing.T) {
	is := contentOf(t, webPolicy("u1", "web", nil, nil))
	source := OwnerName{OwnerPolicySource, "fairlead-system", "policies"}
	kustomization := OwnerName{OwnerKustomization, "flux-system", "apps"}
	release := OwnerName{OwnerHelmRelease, "shop", "web"}
	app := OwnerName{OwnerApplication, "argocd", "shop"}
	flux := map[string]string{labelKustomizationName: "apps", labelKustomizationNamespace: "flux-system"}
	helm := map[string]string{labelHelmReleaseName: "web", labelHelmReleaseNamespace: "shop"}
	tracked := map[string]string{annotationArgoTracking: "shop:fairlead.dev/MeshNetworkPolicy:shop/web"}
	fromSource := &recordv1.Provenance{Source: "fairlead-system/policies", Url: "https://git/p", Revision: "main@sha1:1", Path: "web.yaml"}
	lists := func(a Applied) *Owner {
		return &Owner{URL: "https://git/p", Revision: "main@sha1:1", Path: "./deploy", Policies: map[PolicyName]Applied{web: a}}
	}
	other := &Owner{Revision: "main@sha1:1", Policies: map[PolicyName]Applied{{web.Kind, "shop", "other"}: {}, {web.Kind, "else", "web"}: {}}}
	for _, tt := range []struct {
		name   string
		policy Policy
		owners map[OwnerName]*Owner
		want   *recordv1.Provenance
		doubt  string // of the warning, if there is one
	}{
		{"by hand", webPolicy("u1", "web", nil, nil), nil, nil, ""},
		{"ours", webPolicy("u1", "web", ours(), nil), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, "u1"})}, fromSource, ""},
		{"ours, with forged annotations", webPolicy("u1", "web", ours(), forgedMarks()), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, "u1"})}, fromSource, ""},
		{"ours, being created", webPolicy("u1", "web", ours(), nil), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, ""})}, fromSource, ""},
		{"forged marks of ours, no such source", webPolicy("u1", "web", ours(), forgedMarks()), nil, nil, "PolicySource fairlead-system/policies, which is not in this cluster"},
		{"forged marks of ours, not in the inventory", webPolicy("u1", "web", ours(), forgedMarks()), map[OwnerName]*Owner{source: other}, nil,
			"PolicySource fairlead-system/policies, which doesn't list it"},
		{"deleted and made again by hand", webPolicy("u2", "web", ours(), forgedMarks()), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, "u1"})}, nil,
			"which applied something else under this name"},
		{"edited by hand", webPolicy("u1", "all", ours(), forgedMarks()), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, "u1"})}, nil,
			"which applied something else under this name"},
		{"an inventory that doesn't say what was applied", webPolicy("u1", "web", ours(), nil), map[OwnerName]*Owner{source: lists(Applied{Path: "web.yaml", UID: "u1"})}, nil,
			"which applied something else under this name"},
		{"a PolicySource's list, and no claim", webPolicy("u1", "web", nil, nil), map[OwnerName]*Owner{source: lists(Applied{"web.yaml", is, "u1"})}, nil, ""},

		{"Flux", webPolicy("u1", "web", flux, nil), map[OwnerName]*Owner{kustomization: lists(Applied{})},
			&recordv1.Provenance{Source: "Kustomization/flux-system/apps", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
		{"forged labels of another namespace's Kustomization", webPolicy("u1", "web", flux, nil), map[OwnerName]*Owner{kustomization: other}, nil,
			"Kustomization flux-system/apps, which doesn't list it"},
		{"no such Kustomization, or no Flux", webPolicy("u1", "web", flux, nil), nil, nil, "Kustomization flux-system/apps, which is not in this cluster"},
		{"Helm", webPolicy("u1", "web", helm, nil), map[OwnerName]*Owner{release: lists(Applied{})},
			&recordv1.Provenance{Source: "HelmRelease/shop/web", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
		{"a HelmRelease that doesn't list it", webPolicy("u1", "web", helm, nil), map[OwnerName]*Owner{release: other}, nil, "HelmRelease shop/web, which doesn't list it"},
		{"Argo CD", webPolicy("u1", "web", nil, tracked), map[OwnerName]*Owner{app: lists(Applied{})},
			&recordv1.Provenance{Source: "Application/argocd/shop", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
		{"an Application of another namespace", webPolicy("u1", "web", nil, map[string]string{annotationArgoTracking: "team_shop:fairlead.dev/MeshNetworkPolicy:shop/web"}),
			map[OwnerName]*Owner{{OwnerApplication, "team", "shop"}: lists(Applied{})},
			&recordv1.Provenance{Source: "Application/team/shop", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
		{"Argo CD that tracks by label", webPolicy("u1", "web", map[string]string{labelInstance: "shop"}, nil), map[OwnerName]*Owner{app: lists(Applied{})},
			&recordv1.Provenance{Source: "Application/argocd/shop", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
		{"an Application that doesn't list it", webPolicy("u1", "web", nil, tracked), map[OwnerName]*Owner{app: other}, nil, "Application argocd/shop, which doesn't list it"},
		{"a chart's usual label", webPolicy("u1", "web", map[string]string{labelInstance: "shop"}, nil), nil, nil, ""},
		{"marks of ours over Flux's", webPolicy("u1", "web", map[string]string{
			labelKustomizationName: "apps", labelKustomizationNamespace: "flux-system", v1alpha1.LabelSourceName: "policies", v1alpha1.LabelSourceNamespace: "fairlead-system",
		}, forgedMarks()), map[OwnerName]*Owner{kustomization: lists(Applied{})},
			&recordv1.Provenance{Source: "Kustomization/flux-system/apps", Url: "https://git/p", Revision: "main@sha1:1", Path: "./deploy"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Whatever is known first, the same comes out.
			for _, first := range []string{"owners", "policy"} {
				s, v := NewState("v1"), newViews()
				s.SetMesh(testMesh())
				if first == "policy" {
					s.SetPolicy(tt.policy)
					v.take(s.Flush())
				}
				for name, o := range tt.owners {
					s.SetOwner(name, o)
				}
				s.SetPolicy(tt.policy)
				d := s.Flush()
				v.take(d)
				if got := v.local["east/policies/MeshNetworkPolicy/shop/web"].GetPolicy().GetProvenance(); !proto.Equal(got, tt.want) {
					t.Errorf("%s first: provenance %v, want %v", first, got, tt.want)
				}
				if len(d.Warnings) > 0 {
					t.Errorf("%s first: warned at once: %v", first, d.Warnings)
				}
				s.AgeClaims()
				s.AgeClaims()
				warnings := s.Flush().Warnings
				if tt.doubt == "" && len(warnings) > 0 || tt.doubt != "" && (len(warnings) != 1 || !strings.Contains(warnings[0].Message, tt.doubt)) {
					t.Errorf("%s first: warnings %v, want one with %q", first, warnings, tt.doubt)
				}
			}
		})
	}
}

// While a source applies a commit, what it wrote down is ahead of what is in the cluster. A policy that wasn't written yet is
// still of the commit before.
func TestProvenanceWhileACommitIsApplied(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	source := OwnerName{OwnerPolicySource, "fairlead-system", "policies"}
	old, next := webPolicy("u1", "web", ours(), nil), webPolicy("u1", "api", ours(), nil)
	inventory := func(revision, content string) {
		s.SetOwner(source, &Owner{Revision: revision, Policies: map[PolicyName]Applied{web: {"web.yaml", content, "u1"}}})
	}
	want := func(what, revision string) {
		t.Helper()
		v.take(s.Flush())
		if got := v.local["east/policies/MeshNetworkPolicy/shop/web"].GetPolicy().GetProvenance().GetRevision(); got != revision {
			t.Errorf("%s: revision %q, want %q", what, got, revision)
		}
	}
	s.SetPolicy(old)
	inventory("1", contentOf(t, old))
	want("applied", "1")
	inventory("2", contentOf(t, next))
	want("the next commit, not written yet", "1")
	s.SetPolicy(next)
	want("the next commit", "2")
	inventory("3", contentOf(t, next))
	want("a commit that leaves it as it is", "3")
	inventory("4", "")
	want("a commit without it, not removed yet", "3")
	s.SetOwner(source, &Owner{Revision: "4"})
	want("left behind by a source that doesn't prune", "")
	inventory("5", contentOf(t, next))
	s.RemovePolicy(web.Kind, web.Namespace, web.Name)
	s.Flush()
	if n := len(s.proofs) + len(s.policiesByClaim); n != 0 {
		t.Errorf("%d things are kept of a policy that is gone", n)
	}
}

// Forged labels cost nothing: an owner that changes costs what it lists, and a warning is given once.
func TestForgedClaimsCostNothing(t *testing.T) {
	s := NewState("v1")
	s.SetMesh(testMesh())
	labels := map[string]string{labelKustomizationName: "apps", labelKustomizationNamespace: "flux-system"}
	const forged = 1000
	for i := range forged {
		s.SetPolicy(Policy{Kind: web.Kind, Namespace: "shop", Name: fmt.Sprintf("p%d", i), Labels: labels})
	}
	s.Flush()
	apps := OwnerName{OwnerKustomization, "flux-system", "apps"}
	touched := func(o *Owner) []string {
		s.SetOwner(apps, o)
		var names []string
		for r := range s.dirty {
			names = append(names, r.name)
		}
		s.Flush()
		slices.Sort(names)
		return names
	}
	listing := func(revision string, names ...string) *Owner {
		o := &Owner{Revision: revision, Policies: map[PolicyName]Applied{}}
		for _, n := range names {
			o.Policies[PolicyName{web.Kind, "shop", n}] = Applied{}
		}
		return o
	}
	for _, step := range []struct {
		what string
		o    *Owner
		want []string
	}{
		{"comes", listing("1", "p1", "unknown"), []string{"p1"}},
		{"says the same", listing("1", "p1", "unknown"), nil},
		{"lists another", listing("1", "p2"), []string{"p1", "p2"}},
		{"has a new revision", listing("2", "p2"), []string{"p2"}},
		{"goes", nil, []string{"p2"}},
	} {
		if diff := cmp.Diff(step.want, touched(step.o)); diff != "" {
			t.Errorf("the owner %s; touched (-want +got):\n%s", step.what, diff)
		}
	}
	said := 0
	for range 4 {
		s.AgeClaims()
		said += len(s.Flush().Warnings)
	}
	if said != forged || len(s.doubted.fresh)+len(s.doubted.aged) != 0 {
		t.Errorf("%d warnings for %d policies, %d are looked at each time", said, forged, len(s.doubted.fresh)+len(s.doubted.aged))
	}
	// One that turns out true is not doubted any more.
	s.SetOwner(apps, listing("1", "p1"))
	s.Flush()
	if _, told := s.doubted.told[PolicyName{web.Kind, "shop", "p1"}.ref()]; told {
		t.Error("a claim that was confirmed is doubted")
	}
}
