// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for namespaces")
	}
}

// newNS makes a namespace that goes with the test.
func newNS(t *testing.T, part string) string {
	t.Helper()
	needRoot(t)
	name := fmt.Sprintf("labtest-%d-%d-%s", os.Getpid(), time.Now().UnixNano(), part)
	t.Cleanup(func() {
		if err := Remove(name); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(Path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	})
	if err := Ensure(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func open(t *testing.T, name string) *NS {
	t.Helper()
	ns, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

// Two hosts on different links reach each other through a router, in both
// families, and laying it all out a second time changes nothing.
func TestRoutedHosts(t *testing.T) {
	aName, rName, bName := newNS(t, "a"), newNS(t, "r"), newNS(t, "b")
	a, r, b := open(t, aName), open(t, rName), open(t, bName)
	p := netip.MustParsePrefix
	for range 2 {
		r.Forwarding()
		r.Bridge("br0")
		r.Veth("to-a", a, "eth0")
		r.Enslave("to-a", "br0")
		r.Addr("br0", p("10.1.0.1/24"), p("fd01::1/64"))
		a.Addr("eth0", p("10.1.0.2/24"), p("fd01::2/64"))
		a.Route(netip.Prefix{}, netip.MustParseAddr("10.1.0.1"))
		a.Route(netip.Prefix{}, netip.MustParseAddr("fd01::1"))
		r.Veth("to-b", b, "eth0")
		r.Addr("to-b", p("10.2.0.1/30"), p("fd02::1/64"))
		b.Addr("eth0", p("10.2.0.2/30"), p("fd02::2/64"))
		b.Route(p("10.1.0.0/24"), netip.MustParseAddr("10.2.0.1"))
		b.Route(p("fd01::/64"), netip.MustParseAddr("fd02::1"))
		for _, ns := range []*NS{a, r, b} {
			if err := ns.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, addr := range []string{"10.2.0.2:7000", "[fd02::2]:7000"} {
		var listener net.Listener
		err := In(bName, func() (err error) { listener, err = net.Listen("tcp", addr); return err })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = listener.Close() })
		// The connection is completed by the kernel: no accept is needed.
		err = In(aName, func() error {
			conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
			if err == nil {
				err = conn.Close()
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestErrorsStick(t *testing.T) {
	ns := open(t, newNS(t, "a"))
	ns.Up("missing")
	first := ns.Err()
	if first == nil {
		t.Fatal("setting up a missing interface went well")
	}
	ns.Up("lo")
	ns.Sysctl(false, map[string]string{"net.ipv4.no_such_thing": "1"})
	if !errors.Is(ns.Err(), first) {
		t.Errorf("the first error %v became %v", first, ns.Err())
	}
}

func TestDeleteOfNothing(t *testing.T) {
	ns := open(t, newNS(t, "a"))
	ns.Delete("missing")
	if err := ns.Err(); err != nil {
		t.Error(err)
	}
}

func TestNodeSeesItsOwnFiles(t *testing.T) {
	name := newNS(t, "n")
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	m := MountNS{File: filepath.Join(dir, "mnt.ns"), NetNS: name, Binds: map[string]string{target: filepath.Join(dir, "source")}}
	t.Cleanup(func() {
		if err := RemoveMount(m.File); err != nil {
			t.Error(err)
		}
	})
	for range 2 {
		if err := EnsureMount(m); err != nil {
			t.Fatal(err)
		}
	}
	// Inside: its own files bound over, its own bpf file system and /run, the
	// devices of its own network namespace, the machine's cgroups, and
	// nobody else's namespaces.
	script := `set -e
		echo x > ` + target + `/file
		mkdir /sys/fs/bpf/labtest
		test "$(ls /sys/class/net)" = lo
		test -d /sys/fs/cgroup/unified -o -f /sys/fs/cgroup/cgroup.controllers
		test -z "$(ls /run/netns)"
		! grep -q ' - nsfs ' /proc/self/mountinfo
		grep -q ' ` + target + ` .*shared:' /proc/self/mountinfo`
	out, err := exec.CommandContext(t.Context(), "nsenter", "--net="+Path(name), "--mount="+m.File, "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := os.Stat(filepath.Join(dir, "source", "file")); err != nil {
		t.Errorf("outside: %v", err)
	}
	if _, err := os.Stat(filepath.Join(target, "file")); err == nil {
		t.Error("the bind shows outside of the node")
	}
	if _, err := os.Stat("/sys/fs/bpf/labtest"); err == nil {
		t.Error("the node's bpf file system is not its own")
	}
	if mounts, err := MountsBelow(dir); err != nil || len(mounts) != 1 || mounts[0] != m.File {
		t.Errorf("mounts outside: %v, %v; want only %s", mounts, err, m.File)
	}
}
