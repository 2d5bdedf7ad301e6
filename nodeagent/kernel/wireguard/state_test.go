// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestKeyIsMadeOnceAndForRootOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wireguard")
	if _, err := LoadKey(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a key before the first: %v", err)
	}
	first, err := LoadOrCreateKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	second, err := LoadOrCreateKey(dir)
	if err != nil || first != second {
		t.Errorf("the second start has another key, %v", err)
	}
	for path, want := range map[string]fs.FileMode{dir: 0o700, filepath.Join(dir, keyFile): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", path, got, want)
		}
	}
}

func TestStateComesBack(t *testing.T) {
	dir := t.TempDir()
	if s, err := LoadState(dir); err != nil || len(s.Peers) != 0 {
		t.Fatalf("before the first save: %+v, %v", s, err)
	}
	want := State{
		Version: stateVersion, ListenPort: 51871, MTU: 1420, KeepaliveSeconds: 25,
		Peers: []Peer{{
			PublicKey: Key{1, 2, 3}, Endpoint: netip.MustParseAddrPort("[2001:db8::1]:51871"),
			AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")},
		}, {PublicKey: Key{4}}}, // behind a NAT: no endpoint
	}
	if err := SaveState(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{})); d != "" {
		t.Errorf("saved and loaded differ:\n%s", d)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("temporary files are left: %v", entries)
	}
}

func TestDamagedStates(t *testing.T) {
	for name, text := range map[string]string{
		"cut":        `{"version":1,"peers":[{"publicKey":"`,
		"no version": `{"peers":[]}`,
		"future":     `{"version":2}`,
		"no key":     `{"version":1,"peers":[{"endpoint":"192.0.2.1:51871"}]}`,
		"short key":  `{"version":1,"peers":[{"publicKey":"AAAA"}]}`,
		"prefix":     `{"version":1,"peers":[{"publicKey":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","allowedIPs":[""]}]}`,
		"port":       `{"version":1,"listenPort":70000}`,
		"empty":      ``,
	} {
		if _, err := parseState(name, []byte(text)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestMTU(t *testing.T) {
	for underlay, want := range map[int]int{1500: 1420, 9000: 8920, 1450: 1370, 1300: 1280} {
		if got := MTU(underlay); got != want {
			t.Errorf("over %d: %d, want %d", underlay, got, want)
		}
	}
}

// What is read from disk is either refused or the same after another round.
func FuzzParseState(f *testing.F) {
	f.Add([]byte(`{"version":1,"listenPort":51871,"mtu":1420,"peers":[{"publicKey":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","endpoint":"192.0.2.1:1","allowedIPs":["10.0.0.0/8"]}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := parseState("fuzz", raw)
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		s2, err := parseState("fuzz", again)
		if err != nil {
			t.Fatalf("%s: %v", again, err)
		}
		if d := cmp.Diff(s, s2, cmpopts.EquateComparable(netip.AddrPort{}, netip.Prefix{}), cmpopts.EquateEmpty()); d != "" {
			t.Error(d)
		}
	})
}
