// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

// ranks holds each kind's place in Kinds.
var ranks = func() map[string]int {
	out := map[string]int{}
	for i, kind := range Kinds() {
		out[kind] = i
	}
	return out
}()

// Rank gives the place in Kinds of the kind of record that a key names. Whoever passes records on in the order of their
// ranks, and removals in the reverse order, never names a record that the receiver lacks. A key that names no record has
// the rank after the last.
func Rank(key string) int {
	if rank, known := ranks[Kind(key)]; known {
		return rank
	}
	return len(ranks)
}
