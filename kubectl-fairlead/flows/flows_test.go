// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flows

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/mesh/flow"
)

func at(seconds int) Flow {
	return Flow{Flow: flow.Flow{Time: time.Unix(int64(seconds), 0)}}
}

// Whatever the order in which verdicts come, they leave in the order of time, each once.
func TestMergerOrders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SliceOf(rapid.IntRange(0, 50)).Draw(t, "in")
		until := rapid.IntRange(0, 51).Draw(t, "until")
		var m Merger
		for _, s := range in {
			m.Add(at(s))
		}
		first := m.Until(time.Unix(int64(until), 0))
		out := slices.Concat(first, m.All())
		if len(out) != len(in) {
			t.Fatalf("%d went in, %d came out", len(in), len(out))
		}
		if !slices.IsSortedFunc(out, func(a, b Flow) int { return a.Time.Compare(b.Time) }) {
			t.Fatalf("out of order: %v", out)
		}
		for i, v := range out {
			if early := v.Time.Before(time.Unix(int64(until), 0)); early != (i < len(first)) {
				t.Fatalf("number %d of %d came on the wrong side of %d", i, len(first), until)
			}
		}
	})
}

func TestEqualTimesKeepTheirOrder(t *testing.T) {
	var m Merger
	for _, node := range []string{"a", "b", "c"} {
		m.Add(Flow{Flow: flow.Flow{Time: time.Unix(1, 0), Node: node}})
	}
	var got string
	for _, v := range m.All() {
		got += v.Node
	}
	if got != "abc" {
		t.Errorf("got %s", got)
	}
}

func TestFilter(t *testing.T) {
	v := Flow{Flow: flow.Flow{
		Time: time.Unix(100, 0), Verdict: flow.Denied,
		Source:      flow.Peer{Namespace: "starwars", Pod: "xwing-7d9f-abc"},
		Destination: flow.Peer{Namespace: "empire", Pod: "deathstar-0"},
	}}
	for _, c := range []struct {
		name   string
		filter Filter
		want   bool
	}{
		{"nothing asked", Filter{}, true},
		{"its verdict", Filter{Verdicts: []string{"allowed", "Denied"}}, true},
		{"another verdict", Filter{Verdicts: []string{"allowed"}}, false},
		{"source's namespace", Filter{Namespaces: []string{"starwars"}}, true},
		{"destination's namespace", Filter{Namespaces: []string{"empire"}}, true},
		{"another namespace", Filter{Namespaces: []string{"rebels"}}, false},
		{"its pod", Filter{Pods: []string{"deathstar-0"}}, true},
		{"its Deployment", Filter{Pods: []string{"starwars/xwing"}}, true},
		{"a pod of another namespace", Filter{Pods: []string{"empire/xwing"}}, false},
		{"a pod that begins alike", Filter{Pods: []string{"xw"}}, false},
		{"before", Filter{Since: time.Unix(101, 0)}, false},
		{"just then", Filter{Since: time.Unix(100, 0)}, true},
		{"one field fails", Filter{Verdicts: []string{"denied"}, Namespaces: []string{"rebels"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.filter.Chooses(v); got != c.want {
				t.Errorf("chosen: %t", got)
			}
		})
	}
}

func TestDecodeSaysWhatItDoesNotUnderstand(t *testing.T) {
	var got []Flow
	tell := func(v Flow) { got = append(got, v) }
	err := decode(strings.NewReader("{\"verdict\":\"DENIED\",\"new-field\":1}\n\nPanic: something\n"), tell)
	if err == nil || !strings.Contains(err.Error(), "Panic: something") {
		t.Errorf("error %v", err)
	}
	if len(got) != 1 || got[0].Verdict != flow.Denied {
		t.Errorf("got %+v", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("{\"verdict\":\"DENIED\",\"source\":{\"port\":1}}\n")
	f.Add("null\n[]\n{}")
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		if err := decode(strings.NewReader(text), func(Flow) { n++ }); err == nil && n > strings.Count(text, "\n")+1 {
			t.Errorf("%d verdicts from %q", n, text)
		}
	})
}
