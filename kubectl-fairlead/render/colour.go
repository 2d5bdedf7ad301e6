// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package render

import (
	"os"

	"golang.org/x/term"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/evaluate"
)

// Colour says whether f wants colours: terminals do, unless NO_COLOR is set (no-color.org) or they are dumb.
func Colour(f *os.File) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// paint colours text, or leaves it as it is. Colour never carries meaning that the words don't.
type paint struct{ on bool }

func palette(on bool) paint { return paint{on} }

func (p paint) with(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p paint) bold(s string) string { return p.with("1", s) }
func (p paint) dim(s string) string  { return p.with("2", s) }

func (p paint) good(s string) string { return p.with("32", s) }
func (p paint) bad(s string) string  { return p.with("31", s) }

func (p paint) state(st evaluate.State, s string) string {
	switch st {
	case evaluate.OK:
		return p.good(s)
	case evaluate.Warning:
		return p.with("33", s)
	case evaluate.Failing:
	}
	return p.bad(s)
}
