// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package ipam_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni/ipam"
)

func ranges(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func owner(i int) ipam.Owner { return ipam.Owner{ContainerID: fmt.Sprintf("c%d", i), IfName: "eth0"} }

// with opens the store for one call, as each run of the plugin does.
func with(t rapid.TB, dir string, f func(*ipam.Store)) {
	t.Helper()
	s, err := ipam.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f(s)
}

func TestAddressesOfBothFamiliesAndReuseAsLateAsPossible(t *testing.T) {
	dir := t.TempDir()
	both := ranges("10.1.0.0/29", "fd00:1::/64")
	with(t, dir, func(s *ipam.Store) {
		got, err := s.Allocate(owner(1), both)
		if err != nil || fmt.Sprint(got) != "[10.1.0.2 fd00:1::2]" {
			t.Fatalf("first pod: %v, %v", got, err)
		}
		again, err := s.Allocate(owner(1), both)
		if err != nil || !slices.Equal(got, again) {
			t.Fatalf("the same call again: %v, %v", again, err)
		}
		if err := s.Release(owner(1)); err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"} {
			got, err := s.Allocate(owner(10+i), both)
			if err != nil || got[0].String() != want {
				t.Fatalf("pod %d: %v, %v; want %s", i, got, err, want)
			}
		}
		_, err = s.Allocate(owner(20), both)
		if !errors.Is(err, ipam.ErrExhausted) {
			t.Fatalf("a sixth pod in a /29: %v", err)
		}
		if left, _ := s.Of(owner(20)); len(left) != 0 {
			t.Errorf("a failed reservation left %v", left)
		}
	})
}

func TestSecondRangeAndTinyRange(t *testing.T) {
	with(t, t.TempDir(), func(s *ipam.Store) {
		var got []netip.Addr
		for i := range 3 {
			addrs, err := s.Allocate(owner(i), ranges("10.1.0.0/31", "10.2.0.8/32"))
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, addrs...)
		}
		slices.SortFunc(got, netip.Addr.Compare)
		if fmt.Sprint(got) != "[10.1.0.0 10.1.0.1 10.2.0.8]" {
			t.Errorf("got %v", got)
		}
	})
}

// What a killed plugin or a full disk may leave behind.
func TestLeftovers(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{".new": "half a reser", "10.1.0.2": "", "last.4": "rubbish", "README": "hello"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	with(t, dir, func(s *ipam.Store) {
		got, err := s.Allocate(owner(1), ranges("10.1.0.0/29"))
		if err != nil || got[0].String() != "10.1.0.3" {
			t.Fatalf("got %v, %v; 10.1.0.2 may be somebody's", got, err)
		}
		if _, err := s.Retain([]ipam.Owner{owner(1)}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(dir, "10.1.0.2")); err == nil {
			t.Error("garbage collection left the reservation without an owner")
		}
		if got, err := s.Of(owner(1)); err != nil || len(got) != 1 {
			t.Errorf("garbage collection took a valid reservation: %v, %v", got, err)
		}
	})
}

// Many plugins at once, as when a node starts.
func TestTogether(t *testing.T) {
	dir := t.TempDir()
	const pods = 50
	got := make([]netip.Addr, pods)
	var all sync.WaitGroup
	for i := range pods {
		all.Go(func() {
			s, err := ipam.Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			addrs, err := s.Allocate(owner(i), ranges("10.1.0.0/24"))
			if err != nil {
				t.Error(err)
				return
			}
			got[i] = addrs[0]
		})
	}
	all.Wait()
	slices.SortFunc(got, netip.Addr.Compare)
	if len(slices.Compact(got)) != pods {
		t.Errorf("an address was given twice: %v", got)
	}
}

// Whatever happens in whatever order: nobody shares, everybody keeps.
func TestNobodyShares(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		run, err := os.MkdirTemp(dir, "run")
		if err != nil {
			t.Fatal(err)
		}
		has := map[ipam.Owner]string{}
		pool := ranges("10.1.0.0/28", "10.3.0.4/30", "fd00:1::/126")[:rapid.IntRange(1, 3).Draw(t, "ranges")]
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			o := owner(rapid.IntRange(0, 20).Draw(t, "owner"))
			with(t, run, func(s *ipam.Store) {
				if rapid.Bool().Draw(t, "release") {
					if err := s.Release(o); err != nil {
						t.Fatal(err)
					}
					delete(has, o)
					return
				}
				got, err := s.Allocate(o, pool)
				if errors.Is(err, ipam.ErrExhausted) {
					delete(has, o) // all or nothing
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				text := fmt.Sprint(got)
				if before, ok := has[o]; ok && before != text {
					t.Fatalf("%v had %s and now has %s", o, before, text)
				}
				has[o] = text
				for other, theirs := range has {
					if other != o && theirs == text {
						t.Fatalf("%v and %v share %s", o, other, text)
					}
				}
			})
		}
	})
}
