// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package netlab makes the lab's network and mount namespaces and the links
// between them. Everything in it can be called again: what is already as
// asked for stays as it is, so that an interrupted run can be continued.
//
// Namespaces are kept alive by bind mounts, not by processes: network
// namespaces under /run/netns, where `ip netns` lists them, and mount
// namespaces in the instance's state directory.
package netlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// Path is the file that stands for a network namespace.
func Path(name string) string { return filepath.Join(netnsDir, name) }

// isNamespace tells whether path is a namespace's bind mount rather than the
// bare file that a reboot or a crash leaves behind.
func isNamespace(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Type == unix.NSFS_MAGIC
}

// Exists tells whether the network namespace is there.
func Exists(name string) bool { return isNamespace(Path(name)) }

// Ensure makes the network namespace, with its loopback up and ready to
// forward, unless it is there.
func Ensure(name string) error {
	if Exists(name) {
		return nil
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", netnsDir, err)
	}
	file := Path(name)
	if err := touch(file); err != nil {
		return err
	}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return unix.Mount(threadNS("net"), file, "", unix.MS_BIND, "")
	})
	if err != nil {
		return errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), os.Remove(file))
	}
	return nil
}

// Remove deletes the network namespace's name; the kernel frees the namespace
// with the last process in it. Removing what is not there is no error.
func Remove(name string) error { return releaseNS(Path(name)) }

func releaseNS(file string) error {
	// A crash between two binds can leave one mount above another.
	for isNamespace(file) {
		if err := unix.Unmount(file, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", file, err)
		}
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove namespace file: %w", err)
	}
	return nil
}

// In runs f on a thread inside the network namespace. Sockets that f opens
// belong to the namespace for good; goroutines it starts do not run there.
func In(name string, f func() error) error {
	return onThread(func() error {
		if err := enterNet(name); err != nil {
			return err
		}
		return f()
	})
}

// onThread runs f on an operating system thread of its own, which ends with
// f: a thread that has changed namespaces must never serve other goroutines.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		done <- f()
	}()
	return <-done
}

func threadNS(kind string) string {
	return fmt.Sprintf("/proc/%d/task/%d/ns/%s", os.Getpid(), unix.Gettid(), kind)
}

func touch(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("make namespace file: %w", err)
	}
	return f.Close()
}

// enterNet moves the calling thread into the network namespace.
func enterNet(name string) error {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer func() { _ = ns.Close() }()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}
