// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package manifest reads YAML files of objects so that every mistake has its line: unknown and doubled fields are mistakes,
// because a misspelt "ingres" would be a policy that says something else than its author meant. It is pure.
//
//	file ── Split ──► documents ── JSON ──► Decode into a kind's Go type; Positions: from a field to its line
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// Problem is one thing wrong in a file.
type Problem struct {
	Line    int
	Message string
}

// Document is one YAML document of a file and the line it begins at.
type Document struct {
	data      []byte
	firstLine int
}

// Split cuts a YAML stream at its "---" lines, which mean the same everywhere at the beginning of a line.
func Split(data []byte) []Document {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []Document
	cur, line := Document{firstLine: 1}, 0
	for l := range bytes.Lines(data) {
		line++
		text := bytes.TrimRight(l, "\r\n")
		if bytes.Equal(text, []byte("...")) {
			// The parser reads only up to here and would drop the rest in silence.
			docs = append(docs, cur)
			cur = Document{firstLine: line + 1}
			continue
		}
		if bytes.Equal(text, []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) {
			docs = append(docs, cur)
			// What follows the marker on its line belongs to the document; keep the line so that numbers stay true.
			cur = Document{data: append(bytes.Clone(bytes.TrimPrefix(text, []byte("---"))), '\n'), firstLine: line}
			continue
		}
		cur.data = append(cur.data, l...)
	}
	return append(docs, cur)
}

// JSON is the document as JSON: null if it is empty.
func (d Document) JSON() ([]byte, *Problem) {
	raw, err := yaml.YAMLToJSONStrict(d.data)
	if err != nil {
		line, msg := d.locate(err)
		return nil, &Problem{line, msg}
	}
	return raw, nil
}

// IsExpectations says whether a document holds what `kubectl fairlead policy test` expects of the policies beside it: it is in a
// file that is named so, and is no Kubernetes object. An object in such a file is one as anywhere else: it may have had that name
// before there were expectations.
func IsExpectations(file string, raw []byte) bool {
	if !strings.HasSuffix(file, "_test.yaml") && !strings.HasSuffix(file, "_test.yml") {
		return false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return false
	}
	_, version := fields["apiVersion"]
	_, kind := fields["kind"]
	return !version && !kind
}

// Decode reads JSON into a Go type, where an unknown field is a problem.
func Decode(raw []byte, into any, pos Positions) []Problem {
	strict, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		var te *json.UnmarshalTypeError
		if errors.As(err, &te) {
			return []Problem{{pos.Of(te.Field), fmt.Sprintf("%s: expected %s, got %s", te.Field, te.Type, te.Value)}}
		}
		return []Problem{{pos.First(), err.Error()}}
	}
	var problems []Problem
	for _, e := range strict {
		line := pos.First()
		if _, field, ok := strings.Cut(e.Error(), "\""); ok {
			line = pos.Of(strings.TrimSuffix(field, "\""))
		}
		problems = append(problems, Problem{line, e.Error()})
	}
	return problems
}
