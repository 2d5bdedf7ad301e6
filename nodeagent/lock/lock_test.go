// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lock

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// holdEnv makes the test binary a process that holds the lock there until it is killed.
const holdEnv = "FAIRLEAD_TEST_HOLD_LOCK"

func TestMain(m *testing.M) {
	if path := os.Getenv(holdEnv); path != "" {
		l, err := Take(context.Background(), path, "the first agent", 0, quiet)
		fmt.Println("held", err)
		_, _ = io.Copy(io.Discard, os.Stdin) // it never ends
		_ = l.Release()
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestTheSecondAgentIsToldWhoTheFirstIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "lock")
	first, err := Take(t.Context(), path, "nodeagent v1, pid 7", 0, quiet)
	if err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if _, err := Take(t.Context(), path, "nodeagent v2", 0, quiet); !errors.As(err, &held) || held.Holder != "nodeagent v1, pid 7" {
		t.Fatalf("error = %v", err)
	}
	if err := first.Release(); err != nil {
		t.Fatal(err)
	}
	second, err := Take(t.Context(), path, "v2", 0, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "v2\n" {
		t.Errorf("the file says %q, %v", text, err)
	}
	if err := second.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := Take(t.Context(), path, "first", 0, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := first.Release(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Take(ctx, path, "second", time.Hour, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

// A new agent waits for the last one, and gets the lock when that one was killed: no process can forget to give it back.
func TestAKilledHolderHoldsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), holdEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held <nil>\n" {
		t.Fatalf("the other process says %q, %v", line, err)
	}
	waiting := make(chan struct{})
	log := slog.New(slog.NewTextHandler(notify(waiting), nil))
	got := make(chan error, 1)
	go func() {
		l, err := Take(t.Context(), path, "second", time.Hour, log)
		if err == nil {
			err = l.Release()
		}
		got <- err
	}()
	<-waiting
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// notify closes a channel at the first line that is logged.
type notify chan struct{}

func (n notify) Write(p []byte) (int, error) {
	select {
	case <-n:
	default:
		close(n)
	}
	return len(p), nil
}
