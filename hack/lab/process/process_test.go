// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const after = " S 1 7 7 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 5 0 98765 1000 50"
	for name, comm := range map[string]string{"plain": "(sleep)", "spaces": "(a b)", "parentheses": "(a) S 9 (b)"} {
		st, err := parseStat("42 " + comm + after)
		if err != nil || st.start != 98765 || st.state != 'S' {
			t.Errorf("%s: %+v, %v", name, st, err)
		}
	}
	for _, bad := range []string{"", "42 (x", "42 (x) S 1 2", "42 (x) S" + strings.Repeat(" y", 30)} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
}

// newSpec gives a program in a cgroup of the test's own, which goes with the
// test.
func newSpec(t *testing.T, argv ...string) Spec {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for cgroups")
	}
	cgroup := fmt.Sprintf("labtest-%d-%d", os.Getpid(), time.Now().UnixNano())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := KillCgroup(ctx, cgroup); err != nil {
			t.Error(err)
		}
	})
	return Spec{Name: "test", Dir: t.TempDir(), Argv: argv, Cgroup: cgroup}
}

func TestStartAdoptStop(t *testing.T) {
	s := newSpec(t, "sleep", "1000")
	if started, err := Start(s); err != nil || !started {
		t.Fatalf("first start: %v, %v", started, err)
	}
	pid, ok := s.Running()
	if !ok {
		t.Fatal("does not run")
	}
	if started, err := Start(s); err != nil || started {
		t.Fatalf("second start: %v, %v", started, err)
	}
	if again, _ := s.Running(); again != pid {
		t.Errorf("pid %d became %d", pid, again)
	}
	if err := s.Stop(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Running(); ok {
		t.Error("still runs")
	}
	if err := s.Stop(time.Second); err != nil {
		t.Errorf("stopping what does not run: %v", err)
	}
}

func TestAnotherProcessWithTheSamePIDIsNotOurs(t *testing.T) {
	s := Spec{Name: "test", Dir: t.TempDir()}
	raw, err := json.Marshal(record{PID: os.Getpid(), Start: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.PIDFile(), raw, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Running(); ok {
		t.Error("took this test for the program")
	}
	// Ends the test's process if it is wrong.
	if err := s.Stop(time.Second); err != nil {
		t.Error(err)
	}
}

func TestWaitTellsWhyAProgramEnded(t *testing.T) {
	s := newSpec(t, "sh", "-c", "echo the reason; exit 3")
	if _, err := Start(s); err != nil {
		// It may be gone before it is recorded: that must tell the reason too.
		if !strings.Contains(err.Error(), "ended at once") {
			t.Fatal(err)
		}
		return
	}
	err := s.Wait(t.Context(), func(context.Context) error { return errors.New("not yet") })
	if err == nil || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("got %v", err)
	}
}

func TestKillCgroupFindsWhatEscapedItsParent(t *testing.T) {
	s := newSpec(t, "sh", "-c", `setsid sleep 1000 & echo $! > "$0"; wait`)
	file := filepath.Join(s.Dir, "child")
	s.Argv = append(s.Argv, file)
	if _, err := Start(s); err != nil {
		t.Fatal(err)
	}
	var child int
	err := s.Wait(t.Context(), func(context.Context) error {
		raw, err := os.ReadFile(file)
		if err == nil {
			_, err = fmt.Sscan(string(raw), &child)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	before, err := readStat(child)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := KillCgroup(ctx, s.Cgroup); err != nil {
		t.Fatal(err)
	}
	if now, err := readStat(child); err == nil && now.start == before.start && now.state != 'Z' {
		t.Error("the child lives")
	}
	if left, err := FindCgroups(s.Cgroup); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestEnsureCgroupIsInEveryHierarchy(t *testing.T) {
	s := newSpec(t)
	for range 2 {
		if err := EnsureCgroup(s.Cgroup); err != nil {
			t.Fatal(err)
		}
	}
	all, err := Hierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range all {
		if _, err := os.Stat(filepath.Join(h, s.Cgroup)); err != nil {
			t.Error(err)
		}
	}
}
