// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU is the time that all threads of the child used so far, read without its help.
func (c *Child) CPU() (time.Duration, error) { return cpu(c.cmd.Process.Pid) }

// cpu reads the process's CPU clock: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel's posix-timers.h.
func cpu(pid int) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Memory is what the kernel says of a process's memory, in bytes (proc(5)).
type Memory struct {
	Resident int64 // VmRSS
	Peak     int64 // VmHWM
}

// Memory of the child.
func (c *Child) Memory() (Memory, error) {
	fields, err := readFields(fmt.Sprintf("/proc/%d/status", c.cmd.Process.Pid))
	return Memory{Resident: fields["VmRSS"] << 10, Peak: fields["VmHWM"] << 10}, err
}

// ResetPeak lets the peak begin anew.
func (c *Child) ResetPeak() error {
	path := fmt.Sprintf("/proc/%d/clear_refs", c.cmd.Process.Pid)
	if err := os.WriteFile(path, []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the peak of %s: %w", c.Role, err)
	}
	return nil
}

// IO counts bytes (proc(5)): Read and Written by any system call, sockets among them, Disk what was sent to the disk.
type IO struct{ Read, Written, Disk int64 }

// IO of the child.
func (c *Child) IO() (IO, error) {
	fields, err := readFields(fmt.Sprintf("/proc/%d/io", c.cmd.Process.Pid))
	return IO{Read: fields["rchar"], Written: fields["wchar"], Disk: fields["write_bytes"]}, err
}

// readFields reads lines of "name: number".
func readFields(path string) (map[string]int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	out := map[string]int64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		values := strings.Fields(rest)
		if !ok || len(values) == 0 {
			continue
		}
		if n, err := strconv.ParseInt(values[0], 10, 64); err == nil {
			out[name] = n
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return out, nil
}

// Heap is what the Go runtime of a process says, in bytes but for Collections.
type Heap struct {
	Live        uint64 // after a collection, if one was asked for
	Allocated   uint64 // ever
	Collections uint32
}

// HeapOfSelf reads this process's heap, collecting first if asked.
func HeapOfSelf(collect bool) Heap {
	if collect {
		debug.FreeOSMemory()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Heap{Live: m.HeapAlloc, Allocated: m.TotalAlloc, Collections: m.NumGC}
}

// Idle waits until the child used less than a millisecond of CPU time in each of five looks 20 ms apart.
func (c *Child) Idle(limit time.Duration) error {
	deadline := time.Now().Add(limit)
	last, err := c.CPU()
	for quiet := 0; err == nil && quiet < 5; {
		time.Sleep(20 * time.Millisecond)
		var now time.Duration
		if now, err = c.CPU(); now-last < time.Millisecond {
			quiet++
		} else {
			quiet = 0
		}
		last = now
		if time.Now().After(deadline) {
			return fmt.Errorf("%s doesn't come to rest within %s", c.Role, limit)
		}
	}
	return err
}
