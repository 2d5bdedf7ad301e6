// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"strings"
	"testing"
)

func TestMistakesHaveTheirLines(t *testing.T) {
	docs := Split([]byte("# one\n---\nname: a\n---\nname: b\nsub:\n  other: 1\n"))
	if len(docs) != 3 {
		t.Fatalf("%d documents", len(docs))
	}
	raw, bad := docs[2].JSON()
	if bad != nil {
		t.Fatal(bad)
	}
	var into struct {
		Name string `json:"name"`
		Sub  struct {
			Known int `json:"known"`
		} `json:"sub"`
	}
	got := Decode(raw, &into, docs[2].Positions())
	if len(got) != 1 || got[0].Line != 7 || !strings.Contains(got[0].Message, `"sub.other"`) {
		t.Errorf("got %+v", got)
	}
}

func FuzzSplit(f *testing.F) {
	f.Add([]byte("a: 1\n---\nb: [1, {c: 2}]\n"), "b[1].c")
	f.Fuzz(func(t *testing.T, data []byte, field string) {
		for _, d := range Split(data) {
			pos := d.Positions()
			raw, bad := d.JSON()
			if bad != nil {
				continue
			}
			var into struct {
				A string `json:"a"`
			}
			Decode(raw, &into, pos)
			if line, found := pos.Find(field); found && line < pos.First() {
				t.Errorf("line %d is before the object, which begins at %d", line, pos.First())
			}
		}
	})
}
