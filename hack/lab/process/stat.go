// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// stat holds what the lab needs of /proc/PID/stat.
type stat struct {
	state byte
	start uint64 // in clock ticks since boot
}

func readStat(pid int) (stat, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return parseStat(string(raw))
}

func parseStat(line string) (stat, error) {
	// The command name, in parentheses, may itself hold spaces and
	// parentheses: the fields start after the last one.
	_, rest, ok := cutLast(line, ")")
	fields := strings.Fields(rest)
	const startField = 19 // field 22 of proc(5); state is field 3
	if !ok || len(fields) <= startField || len(fields[0]) != 1 {
		return stat{}, fmt.Errorf("process status %q: unknown form", line)
	}
	start, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("process status: start time: %w", err)
	}
	return stat{state: fields[0][0], start: start}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
