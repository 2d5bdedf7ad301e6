// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
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
		for _, doc := range splitDocuments(f.Data) {
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

// document is one YAML document of a file and the line it begins at.
type document struct {
	data      []byte
	firstLine int
}

// splitDocuments cuts a YAML stream at its "---" lines, which mean the same everywhere at the beginning of a line.
func splitDocuments(data []byte) []document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []document
	cur, line := document{firstLine: 1}, 0
	for l := range bytes.Lines(data) {
		line++
		text := bytes.TrimRight(l, "\r\n")
		if bytes.Equal(text, []byte("...")) {
			// The parser reads only up to here and would drop the rest in silence.
			docs = append(docs, cur)
			cur = document{firstLine: line + 1}
			continue
		}
		if bytes.Equal(text, []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) {
			docs = append(docs, cur)
			// What follows the marker on its line belongs to the document; keep the line so that numbers stay true.
			cur = document{data: append(bytes.Clone(bytes.TrimPrefix(text, []byte("---"))), '\n'), firstLine: line}
			continue
		}
		cur.data = append(cur.data, l...)
	}
	return append(docs, cur)
}

func parseDocument(file string, doc document, targetNamespace string) (*Object, []Problem) {
	pos := newPositions(doc)
	fail := func(line int, format string, args ...any) (*Object, []Problem) {
		return nil, []Problem{{file, line, fmt.Sprintf(format, args...)}}
	}
	raw, err := yaml.YAMLToJSONStrict(doc.data)
	if err != nil {
		line, msg := doc.locate(err)
		return fail(line, "%s", msg)
	}
	if string(raw) == "null" {
		return nil, nil
	}
	var content map[string]any
	if err := json.Unmarshal(raw, &content); err != nil {
		return fail(pos.first(), "not a Kubernetes object")
	}
	u := &unstructured.Unstructured{Object: content}
	name, apiVersion := u.GetKind(), u.GetAPIVersion()
	kind, known := v1alpha1.PolicyKindNamed(name)
	switch {
	case name == "" || apiVersion == "":
		return fail(pos.first(), "apiVersion and kind are needed")
	case !known || kind.GroupVersion.String() != apiVersion:
		return fail(pos.of("kind"), "kind %s of %s: only %s may be in a policy repository", name, apiVersion, policyKindNames())
	}
	if ps := strictProblems(file, raw, kind.New(), pos); len(ps) > 0 {
		return nil, ps
	}
	if ps := checkMetadata(file, u, kind, targetNamespace, pos); len(ps) > 0 {
		return nil, ps
	}
	return &Object{Unstructured: u, Path: file, Line: pos.first()}, nil
}

func policyKindNames() string {
	var names []string
	for _, k := range v1alpha1.PolicyKinds() {
		names = append(names, k.Name)
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

// strictProblems decodes into the kind's Go type, where an unknown field is an error: a misspelt "ingres" would
// otherwise be a policy that says something else than its author meant.
func strictProblems(file string, raw []byte, into any, pos positions) []Problem {
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return []Problem{{file, pos.of(te.Field), fmt.Sprintf("%s: expected %s, got %s", te.Field, te.Type, te.Value)}}
		}
		return []Problem{{file, pos.first(), err.Error()}}
	}
	var problems []Problem
	for _, e := range strict {
		line := pos.first()
		if _, field, ok := strings.Cut(e.Error(), "\""); ok {
			line = pos.of(strings.TrimSuffix(field, "\""))
		}
		problems = append(problems, Problem{file, line, e.Error()})
	}
	return problems
}

func checkMetadata(file string, u *unstructured.Unstructured, kind v1alpha1.PolicyKind, targetNamespace string, pos positions) []Problem {
	var problems []Problem
	add := func(field, format string, args ...any) {
		problems = append(problems, Problem{file, pos.of(field), fmt.Sprintf(format, args...)})
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
