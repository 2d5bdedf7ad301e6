// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package process runs the lab's long-lived programs: starts each in its
// namespaces and cgroup, finds it again from a later invocation, and stops it.
// The programs outlive the command that started them; a pid file with the
// process's start time tells a living one from another process that got the
// same number, and the cgroup tells everything an instance ever started, pid
// file or not.
package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Spec says what to run.
type Spec struct {
	Name   string // also names the pid file and the log
	Dir    string // holds both
	Argv   []string
	Env    []string // besides PATH and HOME
	Where  Where
	Cgroup string // its cgroup's name in the unified hierarchy
}

// Where is the place a program runs in.
type Where struct {
	NetNS string // path of a network namespace, or none
	MntNS string // path of a mount namespace, or none
}

type record struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
}

// PIDFile is where the process is recorded.
func (s Spec) PIDFile() string { return filepath.Join(s.Dir, s.Name+".pid") }

// Log is where the process's output goes.
func (s Spec) Log() string { return filepath.Join(s.Dir, s.Name+".log") }

// Running gives the process's pid if it lives.
func (s Spec) Running() (int, bool) {
	raw, err := os.ReadFile(s.PIDFile())
	if err != nil {
		return 0, false
	}
	var r record
	if json.Unmarshal(raw, &r) != nil {
		return 0, false
	}
	st, err := readStat(r.PID)
	if err != nil || st.start != r.Start || st.state == 'Z' {
		return 0, false
	}
	return r.PID, true
}

// Start runs the program unless it already runs, and tells which it was.
func Start(s Spec) (started bool, err error) {
	if _, ok := s.Running(); ok {
		return false, nil
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return false, fmt.Errorf("start %s: %w", s.Name, err)
	}
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return false, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer log.Close()
	cgroup, err := openCgroup(s.Cgroup)
	if err != nil {
		return false, fmt.Errorf("start %s: %w", s.Name, err)
	}
	defer cgroup.Close()

	argv := s.Where.Command(s.Argv...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=/root"}, s.Env...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	// Born inside its cgroup: there is no moment at which a crash of ours
	// would leave a process that teardown can't find.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(cgroup.Fd())}
	if err := cmd.Start(); err != nil {
		return false, fmt.Errorf("start %s: %w", s.Name, err)
	}
	go func() { _ = cmd.Wait() }() // reaps it, should it end before we do
	return true, s.record(cmd.Process.Pid)
}

func (s Spec) record(pid int) error {
	st, err := readStat(pid)
	if err != nil {
		return fmt.Errorf("%s ended at once: %w%s", s.Name, err, s.Tail())
	}
	raw, err := json.Marshal(record{PID: pid, Start: st.start})
	if err != nil {
		return fmt.Errorf("record %s: %w", s.Name, err)
	}
	if err := os.WriteFile(s.PIDFile(), raw, 0o644); err != nil {
		return fmt.Errorf("record %s: %w", s.Name, err)
	}
	return nil
}

// Command wraps a command line so that it runs in w. nsenter replaces itself
// with the program, so the pid stays the same.
func (w Where) Command(argv ...string) []string {
	if w == (Where{}) {
		return argv
	}
	enter := []string{"nsenter"}
	if w.NetNS != "" {
		enter = append(enter, "--net="+w.NetNS)
	}
	if w.MntNS != "" {
		enter = append(enter, "--mount="+w.MntNS)
	}
	return append(append(enter, "--"), argv...)
}

// Wait polls ready until it gives no error. It gives up early, with the end
// of the log, when the process dies.
func (s Spec) Wait(ctx context.Context, ready func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := ready(try)
		cancel()
		if err == nil {
			return nil
		}
		if _, ok := s.Running(); !ok {
			return fmt.Errorf("%s ended before it was ready%s", s.Name, s.Tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w%s", s.Name, err, s.Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Stop ends the process: a polite signal first, SIGKILL after the grace. With
// no grace there is no warning.
func (s Spec) Stop(grace time.Duration) error {
	pid, ok := s.Running()
	if !ok {
		return nil
	}
	// A descriptor cannot be confused with a later process of the same pid.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil // gone in between
	}
	defer func() { _ = unix.Close(fd) }()
	if _, ok := s.Running(); !ok {
		return nil
	}
	for _, step := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, grace}, {unix.SIGKILL, 10 * time.Second}} {
		if step.wait == 0 {
			continue
		}
		if err := unix.PidfdSendSignal(fd, step.sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop %s: %w", s.Name, err)
		}
		for end := time.Now().Add(step.wait); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if _, ok := s.Running(); !ok {
				return nil
			}
		}
	}
	return fmt.Errorf("stop %s: pid %d survives SIGKILL", s.Name, pid)
}

// Tail is the end of the log, worded to follow an error message.
func (s Spec) Tail() string {
	raw, err := os.ReadFile(s.Log())
	if err != nil || len(raw) == 0 {
		return ""
	}
	const most = 3000
	if len(raw) > most {
		raw = raw[len(raw)-most:]
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	if len(lines) > 8 {
		lines = lines[len(lines)-8:]
	}
	return fmt.Sprintf("\n  the end of %s:\n    %s", s.Log(), strings.Join(lines, "\n    "))
}
