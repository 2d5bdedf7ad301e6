// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden with what comes out now")

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
			w, names := s.world()
			e, k := build(w)
			got := dump(e, k, names)
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

func (s *story) world() (*World, map[uint32]string) {
	clusters := slices.Sorted(maps.Keys(s.Clusters))
	w := &World{
		Cluster: clusters[0], Clusters: s.Clusters,
		Identities: map[uint32]map[string]string{}, NamedPorts: map[uint32]map[string][]uint16{},
	}
	names := map[uint32]string{}
	for i, p := range s.Pods {
		parts := strings.Split(p.Name, "/")
		id := identity.Of(uint8(slices.Index(clusters, parts[0])+1), uint16(identity.FirstLocal+i))
		w.Identities[id] = identity.PodLabels(parts[0], parts[1], "", p.Labels, p.NamespaceLabels)
		w.NamedPorts[id] = p.Ports
		names[id] = p.Name
	}
	for _, p := range s.Policies {
		w.Policies = append(w.Policies, Parse(&record.Policy{
			PolicyKind: p.Kind, Namespace: p.Metadata.Namespace, Name: p.Metadata.Name, Spec: p.Spec,
		}))
	}
	return w, names
}

// dump writes the maps for people. Numbers that only have to differ (groups, classes) are left out.
func dump(e *Engine, k *kernel, names map[uint32]string) []byte {
	names = maps.Clone(names)
	for p, id := range k.cidrs {
		names[id] = p.String()
	}
	who := func(id uint32) string {
		if n, ok := names[id]; ok {
			return n
		}
		return identity.Name(id)
	}
	subjects := map[string][]string{} // by what they have in common
	for key, s := range k.subjects {
		text := dumpSubject(k, s)
		subjects[text] = append(subjects[text], who(key.Identity)+" "+key.Dir.String())
	}
	sets := map[uint16][]string{}
	for id, class := range k.identities {
		bits := k.classes[class]
		for bit := range k.sets {
			if bits.Has(bit) {
				sets[bit] = append(sets[bit], who(id))
			}
		}
	}
	var subjectLines, setLines, cidrs, problems []string
	for text, members := range subjects {
		slices.Sort(members)
		subjectLines = append(subjectLines, strings.Join(members, ", ")+": "+text)
	}
	for bit := range k.sets {
		slices.Sort(sets[bit])
		setLines = append(setLines, fmt.Sprintf("%4d: %s\n", bit, strings.Join(sets[bit], ", ")))
	}
	for _, p := range slices.SortedFunc(maps.Keys(k.cidrs), comparePrefixes) {
		cidrs = append(cidrs, fmt.Sprintf("%s = %s\n", identity.Name(k.cidrs[p]), p))
	}
	for _, p := range e.Problems() {
		problems = append(problems, fmt.Sprintf("%s: %s\n", p.PolicyKey, p.Message))
	}
	var b bytes.Buffer
	section(&b, "subjects", subjectLines)
	section(&b, "sets", setLines)
	section(&b, "cidrs", cidrs)
	section(&b, "problems", problems)
	return b.Bytes()
}

func section(b *bytes.Buffer, title string, lines []string) {
	slices.Sort(lines)
	fmt.Fprintf(b, "%s\n", title)
	for _, l := range lines {
		b.WriteString("  " + l)
	}
}

func dumpSubject(k *kernel, s Subject) string {
	text := "open"
	if s.Isolated {
		text = "isolated by " + k.rules[s.DefaultRule].PolicyKey
	}
	if s.Audit {
		text += " (audit)"
	}
	text += "\n"
	for i, l := range k.groups[s.Group] {
		switch l.Verdict {
		case Pass, AuditPass:
			text += fmt.Sprintf("      set %d %s: %s to chunk %d\n", l.Set, portText(l), l.Verdict, l.Rule)
			continue
		case 0: // matches nothing
			if i%LinesPerChunk == LinesPerChunk-1 {
				text += fmt.Sprintf("      chunk %d\n", i/LinesPerChunk+1)
			}
			continue
		}
		rule := k.rules[l.Rule]
		text += fmt.Sprintf("      set %d %s: %s  by %s %s[%d]: %s\n", l.Set, portText(l), l.Verdict, rule.PolicyKey, rule.Kind, rule.Index, rule.Text)
	}
	return text
}

func portText(l Line) string {
	switch {
	case l.Proto == 0:
		return "any"
	case l.To == 0:
		return protocolName(l.Proto)
	}
	return fmt.Sprintf("%s/%d-%d", protocolName(l.Proto), l.From, l.To)
}
