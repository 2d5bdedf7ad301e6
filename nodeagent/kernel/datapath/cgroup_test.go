// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

func contains(err, target error) bool { return errors.Is(err, target) }

func TestNodeCgroups(t *testing.T) {
	const v2 = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
	const hybrid = "31 24 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n" +
		"33 31 0:29 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 none rw\n"
	for _, c := range []struct {
		name, self, mounts string
		want               []string
		fails              bool
	}{
		{"systemd", "0::/kubepods.slice/kubepods-burstable.slice/pod1.slice/cri-1.scope\n", v2, []string{"/sys/fs/cgroup"}, false},
		{"a node that shares its kernel", "4:cpu:/x\n0::/dev-east-1/kubepods/burstable/pod1/c1\n", hybrid, []string{"/sys/fs/cgroup/unified/dev-east-1"}, false},
		{"kind", "0::/kubelet.slice/kubelet-kubepods.slice/pod1.slice/c1\n", v2, []string{"/sys/fs/cgroup/kubelet.slice"}, false},
		{"only a part is mounted", "0::/a/kubepods/c\n", "1 1 0:1 /a /mnt rw - cgroup2 none rw\n", []string{"/mnt"}, false},
		{"another part is mounted", "0::/a/kubepods/c\n", "1 1 0:1 /b /mnt rw - cgroup2 none rw\n", nil, true},
		{"not a pod", "0::/system.slice/agent.service\n", v2, nil, true},
		{"no cgroup2", "4:cpu:/x\n", v2, nil, true},
		{"a namespace of its own", "0::/\n", v2, []string{"/sys/fs/cgroup"}, false},
	} {
		got, err := nodeCgroups(c.self, c.mounts)
		if (err != nil) != c.fails || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.name, got, err, c.want)
		}
		if err != nil && !errors.Is(err, ErrNoCgroup) {
			t.Errorf("%s: %v is no ErrNoCgroup", c.name, err)
		}
	}
}

// cgroup makes a cgroup of the test's own in the v2 hierarchy.
func cgroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	all, err := nodeCgroups("0::/\n", string(mounts))
	if err != nil {
		t.Fatalf("this machine has no cgroup2: %v", err)
	}
	dir := filepath.Join(all[0], "fairlead-test-"+strconv.Itoa(os.Getpid())+"-"+strconv.Itoa(unix.Getuid())+filepath.Base(t.TempDir()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Errorf("remove the cgroup: %v", err)
		}
	})
	return dir
}

func TestSocketsAreAttachedOnceAndSwapped(t *testing.T) {
	dir := cgroup(t)
	other := cgroup(t)
	node(t, func(t *testing.T, pins string) {
		d := open(t, pins, TCX)
		check(t, d.AttachSockets(dir))
		check(t, d.AttachSockets(dir))
		check(t, d.Close())

		d = open(t, pins, TCX)
		defer d.Close()
		check(t, d.AttachSockets(dir))
		links, err := os.ReadDir(filepath.Join(pins, "links"))
		check(t, err)
		if len(links) != 8 {
			t.Errorf("pinned links = %v", links)
		}
		// A cgroup of another node's is another place: the links move.
		check(t, d.AttachSockets(other))
		check(t, d.DetachSockets())
		if links, err := os.ReadDir(filepath.Join(pins, "links")); err != nil || len(links) != 0 {
			t.Errorf("pinned links after detaching = %v, %v", links, err)
		}
		if err := d.AttachSockets(filepath.Join(dir, "none")); err == nil {
			t.Error("a cgroup that isn't there was accepted")
		}
	})
}
