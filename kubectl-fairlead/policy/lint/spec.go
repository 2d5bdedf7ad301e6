// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// A spec is looked at as JSON, whatever its dialect: what it means is left to the engine, and here matter only the words that
// are in it, to make connections of which tell its rules apart.

// words of a part of a spec.
type words struct {
	pods, namespaces, clusters []metav1.LabelSelector
	unsampled                  string // peers of a kind that samples don't cover
	cidrs                      []netip.Prefix
	ports                      []uint16
	messages                   []policy.Connection // of ICMP, of which Proto and Port count
	names                      []string            // that may be those of ports
}

func wordsOf(v any) *words {
	w := &words{}
	w.add(v)
	return w
}

func (w *words) add(v any) { w.read("", "", v) }

// read goes through a value that is under a key; above is the key of the object that has it.
func (w *words) read(above, key string, v any) {
	switch v := v.(type) {
	case map[string]any:
		if key == "endpointSelector" {
			w.unsampled = "endpoints by Cilium's labels"
			return
		}
		if key == "nodes" || key == "nodeSelector" {
			w.unsampled = "nodes, which may have any addresses"
			return
		}
		if s, is := selectorOf(v); is || strings.HasSuffix(strings.ToLower(key), "selector") {
			switch key := strings.ToLower(key); {
			case strings.Contains(key, "namespace"):
				w.namespaces = append(w.namespaces, s)
			case strings.Contains(key, "cluster"):
				w.clusters = append(w.clusters, s)
			default:
				w.pods = append(w.pods, s)
			}
			return
		}
		for _, k := range sortedKeys(v) {
			w.read(key, k, v[k])
		}
	case []any:
		switch key {
		case "serviceAccounts":
			w.unsampled = "service accounts"
		case "services":
			w.unsampled = "services"
		case "icmp":
			for _, e := range v {
				w.readICMP(e)
			}
			return
		}
		for _, e := range v {
			w.read(above, key, e)
		}
	case float64:
		if v >= 1 && v <= 65535 {
			w.ports = append(w.ports, uint16(v))
		}
	case string:
		if p, err := netip.ParsePrefix(v); err == nil {
			w.cidrs = append(w.cidrs, p.Masked())
		} else if key == "port" || key == "destinationNamedPort" || above == "ports" && key == "name" {
			w.names = append(w.names, v)
		}
	}
}

// readICMP finds the type that an entry of icmp names, in each family that has it.
func (w *words) readICMP(v any) {
	entry, _ := v.(map[string]any)
	for family, proto := range map[string]uint8{v1alpha1.ICMPFamilyIPv4: icmp.V4, v1alpha1.ICMPFamilyIPv6: icmp.V6} {
		if of, given := entry["family"]; given && of != family {
			continue
		}
		switch typ := entry["type"].(type) {
		case float64:
			if typ >= 0 && typ <= 255 {
				w.messages = append(w.messages, policy.Connection{Proto: proto, Port: icmp.Port(uint8(typ))})
			}
		case string:
			if number, is := icmp.Named(proto, typ); is {
				w.messages = append(w.messages, policy.Connection{Proto: proto, Port: icmp.Port(number)})
			}
		}
	}
}

func selectorOf(v map[string]any) (metav1.LabelSelector, bool) {
	_, labels := v["matchLabels"]
	_, expressions := v["matchExpressions"]
	var s metav1.LabelSelector
	if text, err := json.Marshal(v); err != nil || json.Unmarshal(text, &s) != nil {
		return metav1.LabelSelector{}, false
	}
	return s, labels || expressions
}

func specOf(p *world.Policy) map[string]any {
	var out map[string]any
	if err := json.Unmarshal(p.Record.Spec, &out); err != nil {
		return nil // the engine says what is wrong with it
	}
	return out
}

// list finds where a rule is in a spec: the list and its place there. The copy may be changed.
func list(p *world.Policy, r policy.Rule) (spec map[string]any, at []any, set func([]any)) {
	spec = specOf(p)
	for _, field := range world.Fields(r) {
		name := strings.TrimPrefix(strings.TrimSuffix(field, "["+strconv.Itoa(r.Index)+"]"), "spec.")
		parent, rest := spec, name
		if outer, inner, nested := strings.Cut(name, "."); nested {
			parent, _ = spec[outer].(map[string]any)
			rest = inner
		}
		if found, is := parent[rest].([]any); is && r.Index < len(found) {
			return spec, found, func(with []any) { parent[rest] = with }
		}
	}
	return nil, nil, nil
}

// without is the policy with one rule less; false if the engine doesn't see it so, and nothing can be said about the rule.
func without(p *world.Policy, r policy.Rule) (*policy.Model, bool) {
	spec, at, set := list(p, r)
	if spec == nil {
		return nil, false
	}
	set(slices.Delete(slices.Clone(at), r.Index, r.Index+1))
	// A NetworkPolicy without policyTypes is about egress only as long as it has rules for it.
	if _, has := spec["policyTypes"]; !has && p.Record.PolicyKind == policy.KindNetworkPolicy && r.Direction == policy.Egress {
		spec["policyTypes"] = []any{"Ingress", "Egress"}
	}
	m := parse(p, spec)
	return m, texts(p.Model, r) == texts(m, policy.Rule{})
}

// texts of a policy's rules, but for one.
func texts(m *policy.Model, but policy.Rule) string {
	r := policy.NewReference(&policy.World{Policies: []*policy.Model{m}})
	var out []string
	for _, rule := range rulesOf(r, m.Key()) {
		if world.Place(rule) == world.Place(but) && rule.Text == but.Text {
			continue
		}
		out = append(out, rule.Direction.String()+" "+rule.Text)
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// peersOf lists the fields in which a rule names its peers, and how many there are.
func peersOf(p *world.Policy, r policy.Rule) (field string, n int) {
	_, at, _ := list(p, r)
	if at == nil {
		return "", 0
	}
	rule, _ := at[r.Index].(map[string]any)
	for _, name := range []string{"peers", "from", "to"} {
		if peers, is := rule[name].([]any); is && len(peers) > 0 {
			return name, len(peers)
		}
	}
	return "", 0
}

// withPeer is the policy with only one of a rule's peers, and the words of that.
func withPeer(p *world.Policy, r policy.Rule, field string, i int) (*policy.Model, *words) {
	spec, at, set := list(p, r)
	rule, _ := at[r.Index].(map[string]any)
	peers, _ := rule[field].([]any)
	rule[field] = []any{peers[i]}
	set(at)
	return parse(p, spec), wordsOf(peers[i])
}

func parse(p *world.Policy, spec map[string]any) *policy.Model {
	rec := *p.Record
	rec.Spec = specText(spec)
	return policy.Parse(&rec)
}
