// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestTheReportCountsWholeTests(t *testing.T) {
	r := parse("=== RUN   TestA\r\n=== RUN   TestA/part\n--- PASS: TestA (0.1s)\r\n    --- PASS: TestA/part (0.1s)\n" +
		"--- FAIL: TestB (0.00s)\n    --- FAIL: TestB/part (0.00s)\n--- SKIP: TestC (0.00s)\nFAIL\n")
	if !slices.Equal(r.passed, []string{"TestA"}) || !slices.Equal(r.failed, []string{"TestB"}) || !slices.Equal(r.skipped, []string{"TestC"}) {
		t.Fatalf("%+v", r)
	}
	r.kernel, r.pkg = "6.1", "./bpf"
	page := render([]result{r})
	for _, want := range []string{"| tests of | 6.1 |", "| `bpf` | 1 passed, 1 failed, 1 skipped |", "- 6.1, `bpf`: TestB", "- 6.1, `bpf`: TestC"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q in\n%s", want, page)
		}
	}
}

// A reader that goes by the format's description finds what was put in.
func TestArchive(t *testing.T) {
	var a archive
	a.folder("modules")
	files := map[string][]byte{"init": []byte("odd"), "modules/000": bytes.Repeat([]byte("even"), 1000), "command": nil}
	for name, data := range files {
		a.file(name, data)
	}
	data := a.finish()
	at := 0
	take := func(n int) []byte { at += n; return data[at-n : at] }
	align := func() { at += -at & 3 }
	found := map[string][]byte{}
	for {
		header := take(110)
		if string(header[:6]) != "070701" {
			t.Fatalf("header %q", header)
		}
		field := func(n int) int {
			v, err := strconv.ParseInt(string(header[6+8*n:14+8*n]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		name := strings.TrimSuffix(string(take(field(11))), "\x00")
		align()
		content := take(field(6))
		align()
		if name == "TRAILER!!!" {
			break
		}
		if mode := field(1); (mode == modeFolder) != (name == "modules") {
			t.Errorf("%s has mode %o", name, mode)
		}
		found[name] = content
	}
	for name, want := range files {
		if got, ok := found[name]; !ok || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
	if at != len(data) {
		t.Errorf("%d bytes behind the trailer", len(data)-at)
	}
}
