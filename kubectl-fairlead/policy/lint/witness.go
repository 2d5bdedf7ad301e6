// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// most label sets that are made for selectors: what needs more isn't judged.
const most = 256

// mostNames of ports that are tried.
const mostNames = 12

// fresh is a value that no policy names.
const fresh = "any-other"

// requirements of a selector on one key. Labels that identities leave out are none: the engine doesn't see them either.
func requirements(s metav1.LabelSelector) map[string][]metav1.LabelSelectorRequirement {
	out := map[string][]metav1.LabelSelectorRequirement{}
	for k, v := range s.MatchLabels {
		out[k] = append(out[k], metav1.LabelSelectorRequirement{Key: k, Operator: metav1.LabelSelectorOpIn, Values: []string{v}})
	}
	for _, e := range s.MatchExpressions {
		out[e.Key] = append(out[e.Key], e)
	}
	maps.DeleteFunc(out, func(key string, _ []metav1.LabelSelectorRequirement) bool {
		_, left := identity.Excluded(key)
		return left
	})
	return out
}

func meets(r metav1.LabelSelectorRequirement, value string, has bool) bool {
	switch r.Operator {
	case metav1.LabelSelectorOpIn:
		return has && slices.Contains(r.Values, value)
	case metav1.LabelSelectorOpNotIn:
		return !has || !slices.Contains(r.Values, value)
	case metav1.LabelSelectorOpExists:
		return has
	case metav1.LabelSelectorOpDoesNotExist:
		return !has
	}
	return true // the engine has closed the policy, and means nobody by it
}

// labelSets makes a label set for each combination of selectors that some label set meets, and no other selector: together
// they tell apart all that selectors can. It goes through keys one by one and forgets how a combination came about, so there are as
// many as there are combinations, and not as there are labels. False: too many.
func labelSets(selectors []metav1.LabelSelector) ([]map[string]string, bool) {
	var of []map[string][]metav1.LabelSelectorRequirement
	values := map[string][]string{}
	for _, s := range selectors {
		own := requirements(s)
		of = append(of, own)
		for key, list := range own {
			for _, r := range list {
				values[key] = append(values[key], r.Values...)
			}
			values[key] = append(values[key], fresh)
		}
	}
	// A letter for each selector: + as long as it is met.
	sets := map[string]map[string]string{strings.Repeat("+", len(selectors)): {}}
	for _, key := range sortedKeys(values) {
		slices.Sort(values[key])
		next := map[string]map[string]string{}
		step := func(met string, have map[string]string, value string, has bool) {
			still := []byte(met)
			for i, own := range of {
				for _, r := range own[key] {
					if !meets(r, value, has) {
						still[i] = '-'
					}
				}
			}
			if next[string(still)] != nil {
				return
			}
			set := maps.Clone(have)
			if has {
				set[key] = value
			}
			next[string(still)] = set
		}
		for _, met := range sortedKeys(sets) {
			step(met, sets[met], "", false)
			for _, value := range slices.Compact(values[key]) {
				step(met, sets[met], value, true)
			}
		}
		if sets = next; len(sets) > most {
			return nil, false
		}
	}
	out := make([]map[string]string, 0, len(sets))
	for _, met := range sortedKeys(sets) {
		out = append(out, sets[met])
	}
	return out, true
}

// edges are addresses that tell CIDRs apart: of those at their ends and just outside of them, one for each combination of
// CIDRs that have it.
func edges(cidrs []netip.Prefix) []netip.Addr {
	all := []netip.Addr{netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:ffff::77")}
	for _, p := range cidrs {
		first, end := p.Addr(), last(p)
		for _, a := range []netip.Addr{first, first.Prev(), end, end.Next()} {
			if a.IsValid() {
				all = append(all, a)
			}
		}
	}
	var out []netip.Addr
	seen := map[string]bool{}
	for _, a := range all {
		in := []byte{byte(a.BitLen())}
		for _, p := range cidrs {
			has := byte('-')
			if p.Contains(a) {
				has = '+'
			}
			in = append(in, has)
		}
		if !seen[string(in)] {
			seen[string(in)] = true
			out = append(out, a)
		}
	}
	return out
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

// together are sets of up to three names: a port that a rule allows by one name another may deny by a second one, and a pass
// may leave it to a third.
func together(names []string) [][]string {
	out := [][]string{nil}
	for i, a := range names {
		out = append(out, []string{a})
		for j, b := range names[:i] {
			out = append(out, []string{a, b})
			for _, c := range names[:j] {
				out = append(out, []string{a, b, c})
			}
		}
	}
	return out
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
