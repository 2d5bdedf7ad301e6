// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/manifest"
)

// Object is a policy found in a tree, with its place.
type Object struct {
	*unstructured.Unstructured
	Path string
	Line int
}

// ref is an object's identity in messages and comparisons.
func (o Object) ref() string { return refOf(o.GetKind(), o.GetNamespace(), o.GetName()) }

func refOf(kind, namespace, name string) string {
	if namespace == "" {
		return kind + "/" + name
	}
	return kind + "/" + namespace + "/" + name
}

// Problem is one thing wrong in a tree.
type Problem struct {
	Path    string
	Line    int
	Message string
}

func (p Problem) String() string {
	if p.Line > 0 {
		return fmt.Sprintf("%s:%d: %s", p.Path, p.Line, p.Message)
	}
	return p.Path + ": " + p.Message
}

// BuildError says what has to change in the repository before its tree can be applied.
type BuildError struct{ Problems []Problem }

// maxProblems shown; someone who broke more files than that reads the first ones anyway.
const maxProblems = 10

func (e *BuildError) Error() string {
	var lines []string
	for i, p := range e.Problems {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Problems)-maxProblems))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "; ")
}

// Parse turns a tree's files into policies. Every problem of every file is reported at once; with any problem there
// are no objects.
func Parse(files []File, targetNamespace string, limits Limits) ([]Object, error) {
	var objects []Object
	var problems []Problem
	for _, f := range files {
		for _, doc := range manifest.Split(f.Data) {
			obj, ps := parseDocument(f.Path, doc, targetNamespace)
			problems = append(problems, ps...)
			if obj != nil {
				objects = append(objects, *obj)
			}
		}
	}
	problems = append(problems, duplicates(objects)...)
	if len(objects) > limits.Objects {
		problems = append(problems, Problem{Path: objects[limits.Objects].Path, Message: fmt.Sprintf("the tree holds %d policies, more than %d", len(objects), limits.Objects)})
	}
	if len(problems) > 0 {
		return nil, &BuildError{Problems: problems}
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.ref(), b.ref()) })
	return objects, nil
}

func duplicates(objects []Object) []Problem {
	var problems []Problem
	first := map[string]Object{}
	for _, o := range objects {
		if was, ok := first[o.ref()]; ok {
			problems = append(problems, Problem{o.Path, o.Line, fmt.Sprintf("%s is already defined at %s:%d", o.ref(), was.Path, was.Line)})
			continue
		}
		first[o.ref()] = o
	}
	return problems
}

func parseDocument(file string, doc manifest.Document, targetNamespace string) (*Object, []Problem) {
	pos := doc.Positions()
	fail := func(line int, format string, args ...any) (*Object, []Problem) {
		return nil, []Problem{{file, line, fmt.Sprintf(format, args...)}}
	}
	raw, bad := doc.JSON()
	if bad != nil {
		return fail(bad.Line, "%s", bad.Message)
	}
	if string(raw) == "null" || manifest.IsExpectations(file, raw) {
		return nil, nil
	}
	var content map[string]any
	if err := json.Unmarshal(raw, &content); err != nil {
		return fail(pos.First(), "not a Kubernetes object")
	}
	u := &unstructured.Unstructured{Object: content}
	name, apiVersion := u.GetKind(), u.GetAPIVersion()
	kind, known := v1alpha1.PolicyKindNamed(name)
	switch {
	case name == "" || apiVersion == "":
		return fail(pos.First(), "apiVersion and kind are needed")
	case !known || kind.GroupVersion.String() != apiVersion:
		return fail(pos.Of("kind"), "kind %s of %s: only %s may be in a policy repository", name, apiVersion, policyKindNames())
	}
	if wrong := manifest.Decode(raw, kind.New(), pos); len(wrong) > 0 {
		return nil, problemsOf(file, wrong)
	}
	if ps := checkMetadata(file, u, kind, targetNamespace, pos); len(ps) > 0 {
		return nil, ps
	}
	return &Object{Unstructured: u, Path: file, Line: pos.First()}, nil
}

func problemsOf(file string, wrong []manifest.Problem) []Problem {
	out := make([]Problem, len(wrong))
	for i, w := range wrong {
		out[i] = Problem{file, w.Line, w.Message}
	}
	return out
}

func policyKindNames() string {
	var names []string
	for _, k := range v1alpha1.PolicyKinds() {
		names = append(names, k.Name)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func checkMetadata(file string, u *unstructured.Unstructured, kind v1alpha1.PolicyKind, targetNamespace string, pos manifest.Positions) []Problem {
	var problems []Problem
	add := func(field, format string, args ...any) {
		problems = append(problems, Problem{file, pos.Of(field), fmt.Sprintf(format, args...)})
	}
	if errs := validation.IsDNS1123Subdomain(u.GetName()); len(errs) > 0 {
		add("metadata.name", "metadata.name %q: %s", u.GetName(), errs[0])
	}
	switch {
	case !kind.Namespaced && u.GetNamespace() != "":
		add("metadata.namespace", "a %s belongs to no namespace", u.GetKind())
	case kind.Namespaced && u.GetNamespace() == "" && targetNamespace == "":
		add("metadata", "metadata.namespace is missing and the PolicySource has no targetNamespace")
	case kind.Namespaced && u.GetNamespace() == "":
		u.SetNamespace(targetNamespace)
	}
	if _, has := u.Object["status"]; has {
		add("status", "status is written by the cluster and must not be in the repository")
	}
	meta, _, _ := unstructured.NestedMap(u.Object, "metadata")
	for field := range meta {
		switch field {
		case "name", "namespace", "labels", "annotations", "creationTimestamp":
		default:
			add("metadata."+field, "metadata.%s can't come from a repository", field)
		}
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return problems
}
