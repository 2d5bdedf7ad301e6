// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
)

// Expectations writes what came of expectations: failures in full.
func Expectations(w io.Writer, format string, colour bool, r expect.Report) error {
	if format != "text" {
		return encode(w, format, r)
	}
	p := palette(colour)
	var b strings.Builder
	for _, result := range r.Results {
		if result.Passed {
			continue
		}
		fmt.Fprintf(&b, "%s  %s\n", p.bad("FAIL"), headline(result))
		for _, c := range result.Connections {
			side(&b, p, "egress ", c.Egress)
			side(&b, p, "ingress", c.Ingress)
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%d passed, %d failed; %d of %s decided something\n", r.Passed, r.Failed, r.Rules-len(r.Unused), count(r.Rules, "rule", "rules"))
	if len(r.Unused) > 0 {
		b.WriteString("\nNo expectation rests on:\n")
		for _, rule := range r.Unused {
			fmt.Fprintf(&b, "  %s:%d: %s, %s: %s\n", rule.File, rule.Line, rule.Policy, rule.Rule, rule.Text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func headline(r expect.Result) string {
	s := fmt.Sprintf("%s:%d: %s → %s: %s", r.File, r.Line, r.From, r.To, r.Message)
	if r.Why != "" {
		s += " (" + r.Why + ")"
	}
	return s
}

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr"`
	Line    int           `xml:"line,attr"`
	Failure *junitFailure `xml:"failure,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the same as CI systems read it: a suite for each file.
func JUnit(w io.Writer, r expect.Report) error {
	var out junitSuites
	for _, result := range r.Results {
		if n := len(out.Suites); n == 0 || out.Suites[n-1].Name != result.File {
			out.Suites = append(out.Suites, junitSuite{Name: result.File})
		}
		s := &out.Suites[len(out.Suites)-1]
		c := junitCase{Name: fmt.Sprintf("%s → %s is %s", result.From, result.To, result.Want), Class: result.File, File: result.File, Line: result.Line}
		if s.Tests++; !result.Passed {
			s.Failures++
			c.Failure = &junitFailure{Message: result.Message, Text: because(result.Connections)}
		}
		s.Cases = append(s.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(out); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func because(all []explain.Connection) string {
	var b strings.Builder
	for _, c := range all {
		side(&b, palette(false), "egress ", c.Egress)
		side(&b, palette(false), "ingress", c.Ingress)
	}
	return b.String()
}
