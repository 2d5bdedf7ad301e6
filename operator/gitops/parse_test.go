// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

const goodPolicy = `# first line
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: deny
  namespace: shop
spec:
  podSelector: {}
`

func refs(objects []Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.ref()+" "+o.Path)
	}
	return out
}

func TestParse(t *testing.T) {
	files := []File{
		{Path: "b.yaml", Data: []byte("---\n" + goodPolicy + "---\n# only a comment\n---\n")},
		{Path: "a/mesh.yml", Data: []byte("\xef\xbb\xbfapiVersion: fairlead.dev/v1alpha1\r\nkind: MeshNetworkPolicy\r\nmetadata: {name: web}\r\nspec: {podSelector: {}, ingress: {}}\r\n--- \r\n" +
			"apiVersion: fairlead.dev/v1alpha1\nkind: ClusterMeshNetworkPolicy\nmetadata: {name: wide}\nspec: {podSelector: {}, egress: {}}\n")},
	}
	objects, err := Parse(files, "target", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ClusterMeshNetworkPolicy/wide a/mesh.yml", "MeshNetworkPolicy/target/web a/mesh.yml", "NetworkPolicy/shop/deny b.yaml",
	}
	if diff := cmp.Diff(want, refs(objects)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseSaysWhereAndWhat(t *testing.T) {
	head := "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  podSelector: {}\n"
	for _, tt := range []struct{ name, text, want string }{
		{"unknown field", goodPolicy + "---\n" + head + "  ingres: {}\n", "p.yaml:17: unknown field \"spec.ingres\""},
		{"unknown nested field", head + "  ingress:\n    allow:\n    - peers:\n      - podSelecter: {}\n", "p.yaml:11: unknown field \"spec.ingress.allow[0].peers[0].podSelecter\""},
		{"wrong type", head + "  mode: [1]\n", "spec.mode: expected"},
		{"not YAML", goodPolicy + "---\nfoo: [\n", "p.yaml:1"},
		{"tab", "apiVersion: v1\n\tkind: x\n", "p.yaml:2: found a tab character"},
		{"key twice", head + "spec: {}\n", "p.yaml:8: key \"spec\" already set in map"},
		{"another kind", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n", "p.yaml:2: kind Secret of v1: only NetworkPolicy"},
		{"the kind in another group", "apiVersion: extensions/v1beta1\nkind: NetworkPolicy\nmetadata: {name: x}\n", "p.yaml:2: kind NetworkPolicy of extensions/v1beta1"},
		{"no kind", "hello: world\n", "p.yaml:1: apiVersion and kind are needed"},
		{"a list", "- a\n- b\n", "p.yaml:1: not a Kubernetes object"},
		{"a string", "\n\nhello\n", "not a Kubernetes object"},
		{"no name", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  namespace: shop\nspec: {podSelector: {}}\n", "metadata.name \"\""},
		{"bad name", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  namespace: shop\n  name: A_b\nspec: {podSelector: {}}\n", "p.yaml:5: metadata.name \"A_b\""},
		{"no namespace", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\nspec: {podSelector: {}}\n", "p.yaml:3: metadata.namespace is missing"},
		{"a namespace too many", "apiVersion: fairlead.dev/v1alpha1\nkind: ClusterMeshNetworkPolicy\nmetadata:\n  name: a\n  namespace: b\nspec: {podSelector: {}}\n", "p.yaml:5: a ClusterMeshNetworkPolicy belongs to no namespace"},
		{"status", head + "status: {}\n", "p.yaml:8: status is written by the cluster"},
		{"finalizers", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: a\n  namespace: b\n  finalizers: [x/y]\nspec: {podSelector: {}}\n", "p.yaml:6: metadata.finalizers can't come from a repository"},
		{"twice", goodPolicy + "---\n" + goodPolicy, "p.yaml:11: NetworkPolicy/shop/deny is already defined at p.yaml:2"},
		{"hidden behind an end marker", goodPolicy + "...\n" + "apiVersion: v1\nkind: Secret\n", "kind Secret"},
		{"bomb", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "excessive aliasing"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			objects, err := Parse([]File{{Path: "p.yaml", Data: []byte(tt.text)}}, "", DefaultLimits())
			var build *BuildError
			if !errors.As(err, &build) || objects != nil {
				t.Fatalf("Parse = %v, %v", refs(objects), err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q lacks %q", err, tt.want)
			}
		})
	}
}

func TestParseReportsEveryFileAndNothingPasses(t *testing.T) {
	files := []File{{Path: "good.yaml", Data: []byte(goodPolicy)}}
	for _, p := range []string{"x.yaml", "y.yaml"} {
		files = append(files, File{Path: p, Data: []byte("foo: [\n")})
	}
	objects, err := Parse(files, "", DefaultLimits())
	if objects != nil || err == nil || !strings.Contains(err.Error(), "x.yaml") || !strings.Contains(err.Error(), "y.yaml") {
		t.Errorf("Parse = %v, %v", refs(objects), err)
	}
}

func TestMakePlan(t *testing.T) {
	src := &v1alpha1.PolicySource{}
	src.Name, src.Namespace, src.Spec.Prune = "src", "ns", true
	src.Status.Inventory = []v1alpha1.InventoryEntry{
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny", Path: "old.yaml"},
		{Kind: "NetworkPolicy", Namespace: "shop", Name: "gone", Path: "old.yaml"},
	}
	objects, err := Parse([]File{{Path: "p.yaml", Data: []byte(goodPolicy)}}, "", DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	tree := &Tree{URL: "https://git/p", Revision: "main@sha1:1"}
	p := MakePlan(src, tree, objects)
	if diff := cmp.Diff([]v1alpha1.InventoryEntry{{Kind: "NetworkPolicy", Namespace: "shop", Name: "gone", Path: "old.yaml"}}, p.Prune); diff != "" {
		t.Errorf("prune (-want +got):\n%s", diff)
	}
	if len(p.Inventory) != 1 || p.Inventory[0].Path != "p.yaml" || len(p.Union) != 2 {
		t.Errorf("inventory %v, union %v", p.Inventory, p.Union)
	}
	got := p.Apply[0]
	if got.GetAnnotations()[v1alpha1.AnnotationSourcePath] != "p.yaml" || got.GetAnnotations()[v1alpha1.AnnotationSourceRevision] != "main@sha1:1" ||
		got.GetAnnotations()[v1alpha1.AnnotationSourceURL] != "https://git/p" || got.GetLabels()[v1alpha1.LabelSourceName] != "src" || got.GetLabels()[v1alpha1.LabelSourceNamespace] != "ns" {
		t.Errorf("marks: %v %v", got.GetAnnotations(), got.GetLabels())
	}
	if objects[0].GetAnnotations() != nil {
		t.Error("MakePlan changed its input")
	}
	src.Spec.Prune = false
	if p := MakePlan(src, tree, objects); len(p.Prune) != 0 {
		t.Errorf("pruned without being asked: %v", p.Prune)
	}
}

func TestPaths(t *testing.T) {
	for in, want := range map[string]string{"": "", "./": "", ".": "", "/": "", "a/b": "a/b", "./a/": "a", "/a//b/": "a/b"} {
		if got, err := cleanPath(in); err != nil || got != want {
			t.Errorf("cleanPath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"..", "a/../..", "../a"} {
		if got, err := cleanPath(in); err == nil {
			t.Errorf("cleanPath(%q) = %q", in, got)
		}
	}
	for in, want := range map[string]bool{"a.yaml": true, "a/b.yml": true, "a.json": false, ".github/x.yaml": false, "a/.x.yaml": false, "yaml": false} {
		if got := wanted(in); got != want {
			t.Errorf("wanted(%q) = %t", in, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(goodPolicy), "ns")
	f.Add([]byte("---\n...\n---\n&a [*a]\n"), "")
	f.Add([]byte("apiVersion: fairlead.dev/v1alpha1\nkind: ClusterMeshNetworkPolicy\nmetadata: {name: x, labels: 3}\nspec: []\n"), "")
	f.Fuzz(func(t *testing.T, data []byte, ns string) {
		objects, err := Parse([]File{{Path: "f.yaml", Data: data}}, ns, DefaultLimits())
		if err != nil && objects != nil {
			t.Fatalf("both objects and an error: %v", err)
		}
		for _, o := range objects {
			kind, known := v1alpha1.PolicyKindNamed(o.GetKind())
			if o.GetName() == "" || !known || kind.GroupVersion.String() != o.GetAPIVersion() {
				t.Fatalf("accepted %v", o.Object)
			}
		}
	})
}

// Expectations lie beside policies and are none; an object is one, whatever the file's name.
func TestParsePassesOverExpectations(t *testing.T) {
	policy := "apiVersion: fairlead.dev/v1alpha1\nkind: MeshNetworkPolicy\nmetadata: {name: a, namespace: b}\nspec: {podSelector: {}, ingress: {}}\n"
	for _, c := range []struct {
		path, text string
		objects    int
		fails      string
	}{
		{"a_test.yaml", "expect: []\n", 0, ""},
		{"a_test.yaml", policy, 1, ""},
		{"a_test.yml", "expect: []\n---\n" + policy, 1, ""},
		{"a_test.yaml", "expect: []\n---\nkind: MeshNetworkPolicy\n", 0, "a_test.yaml:3: apiVersion and kind are needed"},
		{"a_test.yaml", "kind: 5\n", 0, "a_test.yaml:1: apiVersion and kind are needed"},
		{"a_test.yaml", "expect: []\n---\n" + strings.Replace(policy, "ingress", "ingres", 1), 0, `a_test.yaml:6: unknown field "spec.ingres"`},
		{"a_test.yaml", "expect: []\n---\na: [\n", 0, "a_test.yaml:3: "},
		{"a_test.yaml", "[]\n", 0, "a_test.yaml:1: not a Kubernetes object"},
		{"a.yaml", "expect: []\n", 0, "a.yaml:1: apiVersion and kind are needed"},
		{"test.yaml", "expect: []\n", 0, "test.yaml:1: "},
		{"a_test.yaml.yaml", "expect: []\n", 0, "a_test.yaml.yaml:1: "},
	} {
		objects, err := Parse([]File{{Path: c.path, Data: []byte(c.text)}}, "", DefaultLimits())
		if len(objects) != c.objects || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s %q: %d objects, %v", c.path, c.text, len(objects), err)
		}
	}
}
