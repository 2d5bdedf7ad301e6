// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// debt is what instances changed on the machine outside their own places, to
// be undone when the last of them goes.
type debt struct {
	// MountPoints are directories made for nodes to mount over.
	MountPoints []string `json:"mountPoints,omitempty"`
	// Limits are kernel limits raised, with their values before.
	Limits map[string]int `json:"limits,omitempty"`
}

// limits are raised to these values where they are lower: a node's programs
// watch many files, and the usual 128 watchers last for two instances only.
var limits = map[string]int{"fs/inotify/max_user_instances": 4096}

// borrow makes the mount points and raises the limits. What it is going to
// change it notes first.
func borrow(ctx context.Context, name string, e *entry, points []string) error {
	unlock, err := lock(ctx, registryLock)
	if err != nil {
		return err
	}
	defer unlock(keepLock)
	for _, p := range points {
		for dir := p; ; dir = filepath.Dir(dir) {
			if _, err := os.Stat(dir); err == nil {
				break
			}
			e.Debt.add(debt{MountPoints: []string{dir}})
		}
	}
	for limit, want := range limits {
		if have, err := readLimit(limit); err == nil && have < want {
			e.Debt.add(debt{Limits: map[string]int{limit: have}})
		}
	}
	if err := e.write(name); err != nil {
		return err
	}
	for _, p := range points {
		if err := os.MkdirAll(p, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
	}
	for limit := range e.Debt.Limits {
		if err := writeLimit(limit, limits[limit]); err != nil {
			return err
		}
	}
	return nil
}

func (d *debt) add(other debt) {
	for _, p := range other.MountPoints {
		if !slices.Contains(d.MountPoints, p) {
			d.MountPoints = append(d.MountPoints, p)
		}
	}
	if d.Limits == nil {
		d.Limits = map[string]int{}
	}
	maps.Copy(d.Limits, other.Limits)
}

// settle undoes what is still as the lab made it.
func (d *debt) settle() {
	slices.SortFunc(d.MountPoints, func(a, b string) int { return len(b) - len(a) })
	for _, p := range d.MountPoints {
		_ = os.Remove(p) // fails when somebody has put something there
	}
	for limit, before := range d.Limits {
		if have, err := readLimit(limit); err == nil && have == limits[limit] {
			_ = writeLimit(limit, before)
		}
	}
}

func readLimit(limit string) (int, error) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys", limit))
	if err != nil {
		return 0, fmt.Errorf("read limit: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(raw)))
}

func writeLimit(limit string, value int) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", limit), []byte(strconv.Itoa(value)), 0o644); err != nil {
		return fmt.Errorf("raise limit: %w", err)
	}
	return nil
}
