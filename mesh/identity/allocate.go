// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"slices"
)

// Allocation is the number of a label set.
type Allocation struct {
	ID     Number
	Labels map[string]string
	// New says that have did not hold it: it must be stored before it is used.
	New bool
}

// ExhaustedError says that a cluster has no number left for some label sets.
type ExhaustedError struct {
	ClusterID uint8
	InUse     int // numbers taken
	Missing   int // label sets that got none
}

func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("cluster %d: all %d identities are in use, %d label sets have none; look for a label that differs from pod to pod",
		e.ClusterID, e.InUse, e.Missing)
}

// Allocate finds a number for each label set in want: the one it has in have, or else the lowest free one. Element i of
// the result belongs to want[i]; equal sets get the same number. The outcome does not depend on the order of want, so
// two operators that see the same cluster agree.
//
// When the numbers run out the rest get ID 0 (Unknown) and an *ExhaustedError tells how many; what could be
// allocated is still returned.
func Allocate(clusterID uint8, have map[uint32]map[string]string, want []map[string]string) ([]Allocation, error) {
	if clusterID == 0 {
		return nil, fmt.Errorf("allocate identities: cluster id 0 is reserved")
	}
	taken, numbers := index(clusterID, have)

	out := make([]Allocation, len(want))
	missing := map[string][]int{} // canonical labels → indexes in want
	for i, labels := range want {
		key := Canonical(labels)
		out[i].Labels = labels
		if n, ok := numbers[key]; ok {
			out[i].ID = n
			continue
		}
		missing[key] = append(missing[key], i)
	}

	keys := make([]string, 0, len(missing))
	for key := range missing {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	next := FirstLocal
	for done, key := range keys {
		for next <= LastLocal && taken[next] {
			next++
		}
		if next > LastLocal {
			return out, &ExhaustedError{ClusterID: clusterID, InUse: LastLocal - FirstLocal + 1, Missing: len(keys) - done}
		}
		for _, i := range missing[key] {
			out[i].ID, out[i].New = Of(clusterID, uint16(next)), true
		}
		next++
	}
	return out, nil
}

// index finds which local numbers of a cluster are taken, and by which label set. Where two numbers have one label set
// (two leaders for a moment), the lower one is used from now on.
func index(clusterID uint8, have map[uint32]map[string]string) (taken []bool, numbers map[string]Number) {
	taken = make([]bool, LastLocal+1)
	numbers = make(map[string]Number, len(have))
	for n, labels := range have {
		if !IsPod(n) || ClusterOf(n) != clusterID {
			continue
		}
		taken[LocalOf(n)] = true
		key := Canonical(labels)
		if old, ok := numbers[key]; !ok || n < old {
			numbers[key] = n
		}
	}
	return taken, numbers
}
