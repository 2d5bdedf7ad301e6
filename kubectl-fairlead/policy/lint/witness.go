// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// most label sets that are made for a selector: one that needs more isn't judged.
const most = 256

// fresh is a value that no policy names.
const fresh = "any-other"

// vocabulary is what selectors say about keys: values that they name, and keys that they want to be absent or different. Whoever
// meets a selector by having little is told from others by these.
type vocabulary struct {
	values map[string][]string
	absent map[string]bool
}

func vocabularyOf(selectors []metav1.LabelSelector) vocabulary {
	v := vocabulary{map[string][]string{}, map[string]bool{}}
	for _, s := range selectors {
		for k, value := range s.MatchLabels {
			v.values[k] = append(v.values[k], value)
		}
		for _, e := range s.MatchExpressions {
			v.values[e.Key] = append(v.values[e.Key], e.Values...)
			if e.Operator == metav1.LabelSelectorOpNotIn || e.Operator == metav1.LabelSelectorOpDoesNotExist {
				v.absent[e.Key] = true
			}
		}
	}
	for k := range v.values {
		slices.Sort(v.values[k])
		v.values[k] = slices.Compact(v.values[k])
	}
	return v
}

// absence stands for a label that is not there.
const absence = "\x00"

// meeting makes label sets that meet a selector, as many as tell it from all others of the vocabulary; false: too many.
func (v vocabulary) meeting(s metav1.LabelSelector) ([]map[string]string, bool) {
	options := map[string][]string{}
	limit := func(key string, allowed []string) {
		if was, has := options[key]; has {
			allowed = slices.DeleteFunc(slices.Clone(was), func(o string) bool { return !slices.Contains(allowed, o) })
		}
		options[key] = allowed
	}
	for k, value := range s.MatchLabels {
		limit(k, []string{value})
	}
	for _, e := range s.MatchExpressions {
		known := append(slices.Clone(v.values[e.Key]), fresh)
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			limit(e.Key, e.Values)
		case metav1.LabelSelectorOpExists:
			limit(e.Key, known)
		case metav1.LabelSelectorOpDoesNotExist:
			limit(e.Key, []string{absence})
		case metav1.LabelSelectorOpNotIn:
			limit(e.Key, append(slices.DeleteFunc(known, func(o string) bool { return slices.Contains(e.Values, o) }), absence))
		}
	}
	for k := range v.absent { // what other selectors want to be absent may be there or not
		if _, said := options[k]; !said {
			options[k] = append([]string{absence, fresh}, v.values[k]...)
		}
	}
	return product(options)
}

func product(options map[string][]string) ([]map[string]string, bool) {
	out := []map[string]string{{}}
	for _, k := range sortedKeys(options) {
		if _, left := identity.Excluded(k); left {
			continue // identities have none of them
		}
		var next []map[string]string
		for _, have := range out {
			for _, value := range options[k] {
				set := maps.Clone(have)
				if value != absence {
					set[k] = value
				}
				next = append(next, set)
			}
		}
		if out = next; len(out) > most {
			return nil, false
		}
	}
	return out, true
}

// all makes the label sets for several selectors, each by itself and together with each of those that others have: taking a
// rule out may uncover one that means fewer. Without any, those that meet none in particular.
func (v vocabulary) all(selectors, others []metav1.LabelSelector) ([]map[string]string, bool) {
	var out []map[string]string
	seen := map[string]bool{}
	for _, s := range append(slices.Clone(selectors), metav1.LabelSelector{}) {
		for _, o := range append([]metav1.LabelSelector{{}}, others...) {
			sets, ok := v.meeting(together(s, o))
			if !ok {
				return nil, false
			}
			for _, set := range sets {
				if key := identity.Canonical(set); !seen[key] {
					seen[key] = true
					out = append(out, set)
				}
			}
		}
	}
	return out, len(out) <= most
}

// together is a selector that asks for what two ask for.
func together(a, b metav1.LabelSelector) metav1.LabelSelector {
	out := metav1.LabelSelector{MatchExpressions: slices.Concat(a.MatchExpressions, b.MatchExpressions)}
	for _, labels := range []map[string]string{a.MatchLabels, b.MatchLabels} {
		for k, v := range labels {
			out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{v}})
		}
	}
	return out
}

// edges are addresses at the ends of CIDRs, just outside of them, and one that is in none.
func edges(cidrs []netip.Prefix) []netip.Addr {
	out := []netip.Addr{netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:ffff::77")}
	for _, p := range cidrs {
		first, end := p.Addr(), last(p)
		for _, a := range []netip.Addr{first, first.Prev(), end, end.Next()} {
			if a.IsValid() {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// portEdges are the ports that are named, those beside them, and both ends.
func portEdges(named []uint16) []uint16 {
	out := []uint16{1, 65535}
	for _, p := range named {
		out = append(out, p, max(p, 2)-1, min(p, 65534)+1)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
