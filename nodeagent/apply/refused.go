// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import "time"

const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 15 * time.Second
	// levels of backoff: each waits twice as long as the one before.
	levels = 9
)

// refused holds the rows that a target refused, by how often it did in a row. The rows of one level are tried again
// together: a pass looks at nine times, however many rows wait.
type refused[K, V comparable] struct {
	level map[K]uint8 // also of rows that are being tried again
	rows  [levels]map[K]V
	due   [levels]time.Time
	// reason is why one of them was refused, kept until none is left: passes that try nothing still say what they wait for.
	reason error
}

func (r *refused[K, V]) add(key K, value V, now time.Time) {
	if r.level == nil {
		r.level = map[K]uint8{}
	}
	l, again := r.level[key]
	if again {
		l = min(l+1, levels-1)
	}
	r.level[key] = l
	if r.rows[l] == nil {
		r.rows[l] = map[K]V{}
		r.due[l] = now.Add(min(firstRetry<<l, lastRetry))
	}
	r.rows[l][key] = value
}

// drop forgets a row: it was taken, or something else is wanted now.
func (r *refused[K, V]) drop(key K) {
	l, ok := r.level[key]
	if !ok {
		return
	}
	delete(r.level, key)
	delete(r.rows[l], key)
	r.tidy(l)
}

func (r *refused[K, V]) tidy(l uint8) {
	if len(r.rows[l]) == 0 {
		r.rows[l], r.due[l] = nil, time.Time{}
	}
	if len(r.level) == 0 {
		r.level, r.reason = nil, nil
	}
}

// take returns the rows that are due. Each must be dropped or added again.
func (r *refused[K, V]) take(now time.Time) (keys []K, values []V) {
	for l := range r.rows {
		if len(r.rows[l]) == 0 || now.Before(r.due[l]) {
			continue
		}
		for key, value := range r.rows[l] {
			keys, values = append(keys, key), append(values, value)
		}
		r.rows[l], r.due[l] = nil, time.Time{}
	}
	return keys, values
}

func (r *refused[K, V]) has(key K) bool {
	_, ok := r.level[key]
	return ok
}

func (r *refused[K, V]) len() int { return len(r.level) }

// next is when the next rows are due; zero: there are none.
func (r *refused[K, V]) next() (next time.Time) {
	for l := range r.rows {
		if len(r.rows[l]) > 0 && (next.IsZero() || r.due[l].Before(next)) {
			next = r.due[l]
		}
	}
	return next
}
