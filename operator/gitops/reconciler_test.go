// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// heard keeps events.
type heard struct {
	mu  sync.Mutex
	all []string
}

func (h *heard) Eventf(_, _ runtime.Object, typ, reason, _, note string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, typ+" "+reason+" "+fmt.Sprintf(note, args...))
}

func (h *heard) AnnotatedEventf(o, r runtime.Object, _ map[string]string, typ, reason, action, note string, args ...any) {
	h.Eventf(o, r, typ, reason, action, note, args...)
}

// story is a PolicySource over a repository, in a namespace of its own.
type story struct {
	*repo
	ns     string
	events *heard
	r      *Reconciler
	key    client.ObjectKey
}

func newStory(t *testing.T) *story {
	t.Helper()
	ns := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	s := &story{repo: newRepo(t, nil), ns: ns, events: &heard{}, key: client.ObjectKey{Namespace: ns, Name: "src"}}
	s.restart()
	src := &v1alpha1.PolicySource{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "src"},
		Spec:       v1alpha1.PolicySourceSpec{Git: &v1alpha1.GitSource{URL: s.URL}, TargetNamespace: ns, Prune: true},
	}
	if err := kube.Create(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.clean)
	return s
}

// restart forgets everything in memory, as a new process would.
func (s *story) restart() {
	s.r = &Reconciler{Client: kube, Live: kube, Events: s.events, Log: quiet(), Limits: DefaultLimits()}
}

func (s *story) clean() {
	ctx := context.Background()
	src := &v1alpha1.PolicySource{}
	if kube.Get(ctx, s.key, src) == nil {
		_ = kube.Delete(ctx, src)
		_, _ = s.r.Reconcile(ctx, ctrl.Request{NamespacedName: s.key})
	}
	_ = kube.DeleteAllOf(ctx, &v1alpha1.MeshNetworkPolicy{}, client.InNamespace(s.ns))
}

func (s *story) reconcile() *v1alpha1.PolicySource {
	s.t.Helper()
	if _, err := s.r.Reconcile(s.t.Context(), ctrl.Request{NamespacedName: s.key}); err != nil {
		s.t.Fatal(err)
	}
	return s.source()
}

func (s *story) source() *v1alpha1.PolicySource {
	s.t.Helper()
	src := &v1alpha1.PolicySource{}
	if err := kube.Get(s.t.Context(), s.key, src); err != nil {
		s.t.Fatal(err)
	}
	return src
}

func (s *story) policies() map[string]*v1alpha1.MeshNetworkPolicy {
	s.t.Helper()
	var list v1alpha1.MeshNetworkPolicyList
	if err := kube.List(s.t.Context(), &list, client.InNamespace(s.ns)); err != nil {
		s.t.Fatal(err)
	}
	out := map[string]*v1alpha1.MeshNetworkPolicy{}
	for i := range list.Items {
		out[list.Items[i].Name] = &list.Items[i]
	}
	return out
}

func (s *story) wantPolicies(want ...string) map[string]*v1alpha1.MeshNetworkPolicy {
	s.t.Helper()
	got := s.policies()
	have := map[string]bool{}
	for name := range got {
		have[name] = true
	}
	wanted := map[string]bool{}
	for _, w := range want {
		wanted[w] = true
	}
	if diff := cmp.Diff(wanted, have); diff != "" {
		s.t.Fatalf("policies (-want +got):\n%s", diff)
	}
	return got
}

func wantCondition(t *testing.T, src *v1alpha1.PolicySource, typ, status, reason, message string) {
	t.Helper()
	c := apimeta.FindStatusCondition(src.Status.Conditions, typ)
	switch {
	case c == nil && status == "":
	case c == nil:
		t.Errorf("no condition %s", typ)
	case string(c.Status) != status || c.Reason != reason || !strings.Contains(c.Message, message):
		t.Errorf("condition %s is %s %s %q, want %s %s %q", typ, c.Status, c.Reason, c.Message, status, reason, message)
	case c.ObservedGeneration != src.Generation || src.Status.ObservedGeneration != src.Generation:
		t.Errorf("condition %s and status observed %d and %d, generation is %d", typ, c.ObservedGeneration, src.Status.ObservedGeneration, src.Generation)
	}
}

func meshPolicy(name, app string) string {
	return fmt.Sprintf("apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata:\n  name: %s\nspec:\n  podSelector:\n    matchLabels: {app: %s}\n  ingress: {}\n", name, app)
}

func TestACommitIsApplied(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "sub/b.yaml": meshPolicy("b", "two")})
	rev := s.push()
	src := s.reconcile()
	got := s.wantPolicies("a", "b")
	wantCondition(t, src, "Ready", "True", ReasonSucceeded, rev)
	wantCondition(t, src, "Reconciling", "", "", "")
	if src.Status.LastAppliedRevision != rev || src.Status.LastAttemptedRevision != rev || len(src.Status.Inventory) != 2 {
		t.Errorf("status: %+v", src.Status)
	}
	if a := got["b"].Annotations; a[v1alpha1.AnnotationSourcePath] != "sub/b.yaml" || a[v1alpha1.AnnotationSourceRevision] != rev || a[v1alpha1.AnnotationSourceURL] != s.URL {
		t.Errorf("marks of b: %v", a)
	}
	if len(s.events.all) != 1 || !strings.HasPrefix(s.events.all[0], "Normal "+ReasonSucceeded) {
		t.Errorf("events: %v", s.events.all)
	}

	// Nothing new: nothing is written, nobody is told.
	again := s.reconcile()
	if again.ResourceVersion != src.ResourceVersion || s.policies()["a"].ResourceVersion != got["a"].ResourceVersion || len(s.events.all) != 1 {
		t.Error("a look without news wrote something")
	}

	// The next commit changes, adds and removes.
	s.write(map[string]string{"a.yaml": meshPolicy("a", "three"), "sub/b.yaml": "", "c.yaml": meshPolicy("c", "four")})
	rev = s.push()
	src = s.reconcile()
	got = s.wantPolicies("a", "c")
	if got["a"].Spec.PodSelector.MatchLabels["app"] != "three" || src.Status.LastAppliedRevision != rev {
		t.Errorf("a is %v at %s", got["a"].Spec, src.Status.LastAppliedRevision)
	}
}

func TestABrokenTreeChangesNothing(t *testing.T) {
	for name, broken := range map[string]struct{ text, want string }{
		"syntax":    {"foo: [\n", "broken.yaml:1"},
		"misspelt":  {meshPolicy("z", "z") + "  ingres: {}\n", "broken.yaml:9: unknown field \"spec.ingres\""},
		"admission": {"apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: z}\nspec: {podSelector: {}}\n", "broken.yaml:1: MeshNetworkPolicy/"},
		"kind":      {"apiVersion: v1\nkind: Secret\nmetadata: {name: z}\n", "kind Secret of v1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "b.yaml": meshPolicy("b", "one")})
			good := s.push()
			s.reconcile()
			s.write(map[string]string{"a.yaml": meshPolicy("a", "two"), "b.yaml": "", "broken.yaml": broken.text})
			bad := s.push()
			src := s.reconcile()
			wantCondition(t, src, "Ready", "False", ReasonBuildFailed, broken.want)
			wantCondition(t, src, "Ready", "False", ReasonBuildFailed, good+" stays in force")
			wantCondition(t, src, "Stalled", "True", ReasonBuildFailed, broken.want)
			if src.Status.LastAppliedRevision != good || src.Status.LastAttemptedRevision != bad {
				t.Errorf("applied %s, attempted %s", src.Status.LastAppliedRevision, src.Status.LastAttemptedRevision)
			}
			got := s.wantPolicies("a", "b")
			if got["a"].Spec.PodSelector.MatchLabels["app"] != "one" {
				t.Error("half of a broken tree was applied")
			}

			// Somebody deletes a policy just now: the last good one comes back.
			if err := kube.Delete(t.Context(), got["a"]); err != nil {
				t.Fatal(err)
			}
			s.reconcile()
			s.wantPolicies("a", "b")

			s.write(map[string]string{"broken.yaml": ""})
			s.push()
			src = s.reconcile()
			wantCondition(t, src, "Ready", "True", ReasonSucceeded, "")
			wantCondition(t, src, "Stalled", "", "", "")
			s.wantPolicies("a")
		})
	}
}

func TestDriftIsPutRight(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "b.yaml": meshPolicy("b", "one")})
	s.push()
	s.reconcile()
	got := s.policies()

	// A rule that somebody adds, in a field that the repository doesn't mention, goes too.
	a := got["a"]
	a.Spec.Egress = &v1alpha1.MeshPolicyDirection{DefaultAction: "Allow"}
	a.Spec.PodSelector.MatchLabels["app"] = "other"
	if err := kube.Update(t.Context(), a, client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	if err := kube.Delete(t.Context(), got["b"]); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	got = s.wantPolicies("a", "b")
	if got["a"].Spec.Egress != nil || got["a"].Spec.PodSelector.MatchLabels["app"] != "one" {
		t.Errorf("a is still %+v", got["a"].Spec)
	}
	if reqs := s.r.sourceOfDrifted(t.Context(), got["a"]); len(reqs) != 0 {
		t.Errorf("an unchanged policy asks for a look: %v", reqs)
	}
	got["a"].Spec.PodSelector.MatchLabels["app"] = "other"
	if err := kube.Update(t.Context(), got["a"]); err != nil {
		t.Fatal(err)
	}
	if reqs := s.r.sourceOfDrifted(t.Context(), got["a"]); len(reqs) != 1 || reqs[0].NamespacedName != s.key {
		t.Errorf("a changed policy asks for %v", reqs)
	}
}

func TestAnUnreachableRepositoryChangesNothing(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one")})
	rev := s.push()
	s.reconcile()
	src := s.source()
	src.Spec.Git.URL = "http://127.0.0.1:1/policies.git"
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	src = s.reconcile()
	wantCondition(t, src, "Ready", "False", ReasonFetchFailed, "127.0.0.1:1")
	wantCondition(t, src, "Ready", "False", ReasonFetchFailed, rev+" stays in force")
	wantCondition(t, src, "Reconciling", "True", ReasonRetrying, "")
	s.wantPolicies("a")
}

func TestForeignPoliciesAreLeftAlone(t *testing.T) {
	s := newStory(t)
	other := &v1alpha1.MeshNetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.ns, Name: "a", Labels: map[string]string{v1alpha1.LabelSourceName: "other", v1alpha1.LabelSourceNamespace: s.ns}},
		Spec:       v1alpha1.MeshNetworkPolicySpec{Ingress: &v1alpha1.MeshPolicyDirection{}},
	}
	if err := kube.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "b.yaml": meshPolicy("b", "one")})
	s.push()
	src := s.reconcile()
	wantCondition(t, src, "Ready", "False", ReasonBuildFailed, "is managed by PolicySource "+s.ns+"/other")
	s.wantPolicies("a")

	// Nor is pruned what lost our mark.
	s.write(map[string]string{"a.yaml": ""})
	s.push()
	s.reconcile()
	b := s.wantPolicies("a", "b")["b"]
	b.Labels = nil
	if err := kube.Update(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.write(map[string]string{"b.yaml": "", "c.yaml": meshPolicy("c", "one")})
	s.push()
	s.reconcile()
	s.wantPolicies("a", "b", "c")
}

func TestARestartForgetsNothing(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one"), "b.yaml": meshPolicy("b", "one")})
	s.push()
	s.reconcile()
	was := s.policies()["a"].ResourceVersion
	s.restart()
	s.reconcile()
	if now := s.policies()["a"].ResourceVersion; now != was {
		t.Error("a restart rewrote a policy")
	}
	s.write(map[string]string{"b.yaml": ""})
	s.push()
	s.restart()
	s.reconcile()
	s.wantPolicies("a")
}

func TestDeletingASourceTakesItsPoliciesAlong(t *testing.T) {
	for _, prune := range []bool{true, false} {
		t.Run(fmt.Sprint(prune), func(t *testing.T) {
			s := newStory(t)
			s.write(map[string]string{"a.yaml": meshPolicy("a", "one")})
			s.push()
			src := s.reconcile()
			src.Spec.Prune = prune
			if err := kube.Update(t.Context(), src); err != nil {
				t.Fatal(err)
			}
			if err := kube.Delete(t.Context(), src); err != nil {
				t.Fatal(err)
			}
			if _, err := s.r.Reconcile(t.Context(), ctrl.Request{NamespacedName: s.key}); err != nil {
				t.Fatal(err)
			}
			if err := kube.Get(t.Context(), s.key, src); !apierrors.IsNotFound(err) {
				t.Errorf("the source is still there: %v", err)
			}
			if prune {
				s.wantPolicies()
			} else {
				s.wantPolicies("a")
			}
		})
	}
}

func TestSuspendAndRequest(t *testing.T) {
	s := newStory(t)
	s.write(map[string]string{"a.yaml": meshPolicy("a", "one")})
	s.push()
	src := s.reconcile()
	src.Spec.Suspend = true
	src.Annotations = map[string]string{meta.ReconcileRequestAnnotation: "now"}
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	s.write(map[string]string{"b.yaml": meshPolicy("b", "one")})
	s.push()
	src = s.reconcile()
	s.wantPolicies("a")
	if src.Status.LastHandledReconcileAt != "now" || src.Status.ObservedGeneration != src.Generation {
		t.Errorf("status: %+v", src.Status)
	}
	src.Spec.Suspend = false
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	s.reconcile()
	s.wantPolicies("a", "b")
}

func TestFluxSourceWithoutFlux(t *testing.T) {
	s := newStory(t)
	src := s.source()
	src.Spec.Git, src.Spec.SourceRef = nil, &v1alpha1.SourceReference{Kind: "GitRepository", Name: "policies"}
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, s.reconcile(), "Ready", "False", ReasonFetchFailed, "this cluster has no kind GitRepository")
}

func TestFluxArtifact(t *testing.T) {
	s := newStory(t)
	preserve := true
	crd := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "externalartifacts.source.toolkit.fluxcd.io"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: fluxSources.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "externalartifacts", Kind: "ExternalArtifact"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: fluxSources.Version, Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
					Type: "object", XPreserveUnknownFields: &preserve,
				}},
			}},
		},
	}
	if err := install(kube, crd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = kube.Delete(context.Background(), crd) })
	src := s.source()
	src.Spec.Git, src.Spec.SourceRef = nil, &v1alpha1.SourceReference{Kind: "ExternalArtifact", Name: "policies"}
	if err := kube.Update(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, s.reconcile(), "Ready", "False", ReasonFetchFailed, "there is no ExternalArtifact "+s.ns+"/policies")

	u := &unstructured.Unstructured{Object: map[string]any{}}
	u.SetGroupVersionKind(fluxSources.WithKind("ExternalArtifact"))
	u.SetNamespace(s.ns)
	u.SetName("policies")
	if err := kube.Create(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	wantCondition(t, s.reconcile(), "Ready", "False", ReasonFetchFailed, "has no artifact yet")

	pack := tarball(t, [][2]string{{"a.yaml", meshPolicy("a", "one")}})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(pack) }))
	defer srv.Close()
	sum := sha256.Sum256(pack)
	u.Object["status"] = map[string]any{"artifact": map[string]any{
		"url": srv.URL + "/a.tar.gz", "revision": "main@sha1:abc", "digest": "sha256:" + hex.EncodeToString(sum[:]),
	}}
	if err := kube.Update(t.Context(), u); err != nil {
		t.Fatal(err)
	}
	src = s.reconcile()
	wantCondition(t, src, "Ready", "True", ReasonSucceeded, "main@sha1:abc")
	if got := s.wantPolicies("a")["a"].Annotations[v1alpha1.AnnotationSourceRevision]; got != "main@sha1:abc" {
		t.Errorf("revision mark %q", got)
	}
}
