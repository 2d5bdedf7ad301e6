// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden with what the compiler says now")

// story is a testdata/*.yaml file: pods and policies as people write them.
type story struct {
	Clusters map[string]map[string]string `json:"clusters"` // the first by name is the local one
	Pods     []struct {
		Name            string              `json:"name"` // cluster/namespace/name
		Labels          map[string]string   `json:"labels"`
		NamespaceLabels map[string]string   `json:"namespaceLabels"`
		Ports           map[string][]uint16 `json:"ports"`
	} `json:"pods"`
	Policies []struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"metadata"`
		Spec json.RawMessage `json:"spec"`
	} `json:"policies"`
}

// Each story's golden file shows what lies in the datapath's maps afterwards, for people to review.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s story
			if err := yaml.UnmarshalStrict(text, &s); err != nil {
				t.Fatal(err)
			}
			in, names := s.input()
			got := dump(Compile(in), names)
			golden := strings.TrimSuffix(file, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is no longer what comes out; if that is right, go test -update\n--- got\n%s--- want\n%s", golden, got, want)
			}
		})
	}
}

func (s *story) input() (Input, map[uint32]string) {
	clusters := slices.Sorted(maps.Keys(s.Clusters))
	in := Input{
		Cluster: clusters[0], Clusters: s.Clusters,
		Identities: map[uint32]map[string]string{}, NamedPorts: map[uint32]map[string][]uint16{},
	}
	names := map[uint32]string{}
	for i, p := range s.Pods {
		parts := strings.Split(p.Name, "/")
		id := identity.Of(uint8(slices.Index(clusters, parts[0])+1), uint16(identity.FirstLocal+i))
		in.Identities[id] = identity.PodLabels(parts[0], parts[1], "", p.Labels, p.NamespaceLabels)
		in.NamedPorts[id] = p.Ports
		names[id] = p.Name
	}
	for _, p := range s.Policies {
		in.Policies = append(in.Policies, &recordv1.Policy{
			Kind: p.Kind, Namespace: p.Metadata.Namespace, Name: p.Metadata.Name, SpecJson: p.Spec,
		})
	}
	return in, names
}

// dump writes a result for people.
func dump(r *Result, names map[uint32]string) []byte {
	names = maps.Clone(names)
	for p, id := range r.CIDRs {
		names[id] = p.String()
	}
	who := func(id uint32) string {
		if id == 0 {
			return "*"
		}
		if n, ok := names[id]; ok {
			return n
		}
		return identity.Name(id)
	}
	why := func(id uint32) string {
		rule := r.Rules[id]
		if rule.Index < 0 {
			return fmt.Sprintf("%s: %s", rule.PolicyKey, rule.Text)
		}
		return fmt.Sprintf("%s %s[%d]: %s", rule.PolicyKey, rule.Kind, rule.Index, rule.Text)
	}

	var subjects, entries []string
	for k, s := range r.Subjects {
		state := "open unless an entry denies"
		if s.Isolated {
			var by []string
			for _, id := range r.Isolation[k] {
				by = append(by, r.Rules[id].PolicyKey)
			}
			state = "isolated by " + strings.Join(by, ", ")
		}
		if s.Audit {
			state += " (audit)"
		}
		subjects = append(subjects, fmt.Sprintf("%s %s: %s; prefixes %032b\n", who(k.Identity), k.Dir, state, s.PortPrefixes))
	}
	for k, e := range r.Entries {
		arrow := "<-"
		if k.Dir == Egress {
			arrow = "->"
		}
		entries = append(entries, fmt.Sprintf("%s %s %s %s %s %d  by %s\n", who(k.Subject), arrow, who(k.Peer), portText(k), e.Verdict, e.Precedence, why(e.Rule)))
	}
	var b bytes.Buffer
	section := func(title string, lines []string) {
		slices.Sort(lines)
		fmt.Fprintf(&b, "%s\n", title)
		for _, l := range lines {
			b.WriteString("  " + l)
		}
	}
	section("subjects", subjects)
	section("entries", entries)
	var cidrs, problems []string
	for _, p := range slices.SortedFunc(maps.Keys(r.CIDRs), func(a, b netip.Prefix) int { return comparePrefixes(a, b) }) {
		cidrs = append(cidrs, fmt.Sprintf("%s = %s\n", identity.Name(r.CIDRs[p]), p))
	}
	section("cidrs", cidrs)
	for _, p := range r.Problems {
		problems = append(problems, fmt.Sprintf("%s: %s\n", p.PolicyKey, p.Message))
	}
	section("problems", problems)
	return b.Bytes()
}

func portText(k EntryKey) string {
	proto := "any"
	if k.Proto != 0 {
		proto = protocolName(k.Proto)
	}
	if k.PortPrefix == 0 {
		return proto
	}
	return fmt.Sprintf("%s/%d/%d", proto, k.Port, k.PortPrefix)
}
