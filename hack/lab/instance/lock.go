// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const registry = "/run/fairlead-lab"

// registryLock cannot be an instance's name.
const registryLock = "registry-"

// lockPatience is how long to wait for another process. One that was killed
// keeps its locks until its last thread is out of the kernel.
const lockPatience = 30 * time.Second

var errBusy = errors.New("another process is at work on it: wait for it or end it")

// What becomes of a lock's file when the lock is given back.
const (
	keepLock   = false
	removeLock = true
)

// lock takes the named lock for this process. It goes with the process, and
// its file, if wanted, with the lock.
func lock(ctx context.Context, name string) (unlock func(remove bool), err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lockPatience, errBusy)
	defer cancel()
	file := filepath.Join(registry, name+".lock")
	for {
		f, err := tryLock(file)
		if err == nil {
			return func(remove bool) {
				if remove {
					_ = os.Remove(file)
					_ = os.Remove(registry) // with the last instance
				}
				_ = f.Close()
			}, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("lock %s: %w", name, context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func tryLock(file string) (*os.File, error) {
	if err := os.MkdirAll(registry, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if errors.Is(err, os.ErrNotExist) {
		return nil, unix.EWOULDBLOCK // the last instance just took the directory away
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	// Its holder may have removed the file between our two steps: then the
	// next one to come would lock another file.
	mine, err := f.Stat()
	if err == nil {
		var there os.FileInfo
		if there, err = os.Stat(file); err == nil && os.SameFile(mine, there) {
			return f, nil
		}
	}
	_ = f.Close()
	return nil, unix.EWOULDBLOCK
}
