// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unique"
)

// NamedPorts are the numbers that a pod gives to the names of its ports. Pods of one workload give the same ones, so that
// equal ones are held once and compare as equal: an endpoint pays 8 bytes, a map would take 250. The zero value is none.
type NamedPorts struct {
	text unique.Handle[string] // "dns/UDP=53 http/TCP=8080", ascending
}

// NewNamedPorts makes them from "name/PROTOCOL" → number.
func NewNamedPorts(numbers map[string]uint16) NamedPorts {
	if len(numbers) == 0 {
		return NamedPorts{}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(name)
		b.WriteByte('=')
		b.WriteString(strconv.Itoa(int(numbers[name])))
	}
	return NamedPorts{unique.Make(b.String())}
}

// All yields each "name/PROTOCOL" with its number, ascending.
func (p NamedPorts) All() iter.Seq2[string, uint16] {
	return func(yield func(string, uint16) bool) {
		if p == (NamedPorts{}) {
			return
		}
		for port := range strings.SplitSeq(p.text.Value(), " ") {
			name, number, _ := strings.Cut(port, "=")
			n, _ := strconv.ParseUint(number, 10, 16) // as NewNamedPorts wrote it
			if !yield(name, uint16(n)) {
				return
			}
		}
	}
}
