// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package lock keeps a second agent off a node: two would attach, pin and remove each other's programs and write one journal.
// The lock is flock(2)'s on a file, which the kernel releases when its holder is gone, however that ended.
package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// HeldError says who has the lock.
type HeldError struct {
	Path   string
	Holder string // as it called itself
}

// Error names the holder.
func (e *HeldError) Error() string {
	return fmt.Sprintf("%s is locked by %s: two agents on one node would undo each other's work", e.Path, e.Holder)
}

// again is how often a lock that somebody holds is tried. flock(2) has no timeout.
const again = 200 * time.Millisecond

// Lock is held until Release, or until the process ends.
type Lock struct{ file *os.File }

// Take locks a file, which is made if need be, and writes into it who holds it. Where somebody else does it waits, because a
// rolling update may start an agent before the last one is gone; after wait it fails with a *HeldError.
func Take(ctx context.Context, path, holder string, wait time.Duration, log *slog.Logger) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	l := &Lock{file: f}
	if err := l.acquire(ctx, wait, log); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// What the file says is for people. A full disk is no reason not to run.
	if err := l.sign(holder); err != nil {
		log.Warn("the lock doesn't say who holds it", "path", path, "error", err)
	}
	return l, nil
}

func (l *Lock) acquire(ctx context.Context, wait time.Duration, log *slog.Logger) error {
	deadline := time.Now().Add(wait)
	for told := false; ; told = true {
		err := syscall.Flock(int(l.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.EINTR):
			continue
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return fmt.Errorf("lock %s: %w", l.file.Name(), err)
		}
		held := &HeldError{Path: l.file.Name(), Holder: l.holder()}
		if !time.Now().Before(deadline) {
			return held
		}
		if !told {
			log.Warn("waiting for another agent on this node to end", "holder", held.Holder, "path", held.Path, "most", wait)
		}
		select {
		case <-ctx.Done():
			return errors.Join(held, context.Cause(ctx))
		case <-time.After(again):
		}
	}
}

func (l *Lock) sign(holder string) error {
	if err := l.file.Truncate(0); err != nil {
		return err
	}
	_, err := l.file.WriteAt([]byte(holder+"\n"), 0)
	return err
}

// holder reads what whoever holds the lock wrote.
func (l *Lock) holder() string {
	text, err := io.ReadAll(io.NewSectionReader(l.file, 0, 1<<10))
	if name := strings.TrimSpace(string(text)); err == nil && name != "" {
		return name
	}
	return "a process that doesn't say who it is"
}

// Release lets the next one have the lock. The file stays: removing it would let two have locks of one name.
func (l *Lock) Release() error { return l.file.Close() }
