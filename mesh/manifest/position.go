// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"regexp"
	"strconv"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
)

// Positions finds the line of a field in a document, so that an error says where to look.
type Positions struct {
	root      *yamlv3.Node
	firstLine int
}

// Positions of the fields of a document.
func (d Document) Positions() Positions {
	p := Positions{firstLine: d.firstLine}
	var n yamlv3.Node
	// A document that does not parse is reported by the strict parser; positions then only knows where it begins.
	if err := yamlv3.Unmarshal(d.data, &n); err == nil && len(n.Content) > 0 {
		p.root = n.Content[0]
	}
	return p
}

func (p Positions) line(n *yamlv3.Node) int { return p.firstLine + n.Line - 1 }

// First is the line where the object begins.
func (p Positions) First() int {
	if p.root == nil {
		return p.firstLine
	}
	return p.line(p.root)
}

// Of gives the line of a field path such as spec.ingress[0].ports, or of the deepest part of it that exists.
func (p Positions) Of(field string) int {
	line, _ := p.Find(field)
	return line
}

// Find is Of that also says whether all of the path exists.
func (p Positions) Find(field string) (line int, found bool) {
	if p.root == nil {
		return p.firstLine, false
	}
	node, line := p.root, p.First()
	for _, step := range pathSteps(field) {
		next, at := child(node, step)
		if next == nil {
			return line, false
		}
		node, line = next, p.line(at)
	}
	return line, true
}

// pathSteps cuts "spec.ingress[0].from" into spec, ingress, 0, from.
func pathSteps(field string) []string {
	var steps []string
	for part := range strings.SplitSeq(field, ".") {
		name, rest, _ := strings.Cut(part, "[")
		if name != "" {
			steps = append(steps, name)
		}
		for rest != "" {
			var index string
			index, rest, _ = strings.Cut(rest, "]")
			steps = append(steps, index)
			rest = strings.TrimPrefix(rest, "[")
		}
	}
	return steps
}

// child gives the value under a step and the node whose line a reader would look for (the key of a mapping).
func child(n *yamlv3.Node, step string) (value, at *yamlv3.Node) {
	switch n.Kind {
	case yamlv3.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i+1], n.Content[i]
			}
		}
	case yamlv3.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	}
	return nil, nil
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// locate takes the line out of the YAML parser's message and counts it from the beginning of the file.
func (d Document) locate(err error) (int, string) {
	msg := strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")
	msg = strings.TrimPrefix(msg, "yaml: ")
	msg = strings.TrimPrefix(msg, "unmarshal errors:\n  ")
	line := d.firstLine
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		if n, aerr := strconv.Atoi(m[1]); aerr == nil {
			line = d.firstLine + n - 1
			msg = strings.TrimPrefix(msg, m[0]+": ")
		}
	}
	return line, strings.ReplaceAll(msg, "\n", " ")
}
