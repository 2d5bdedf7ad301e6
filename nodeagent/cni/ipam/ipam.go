// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ipam hands out the addresses of a node's pod CIDRs.
//
// A reservation is a file named by the address that holds who has it. Files
// appear by rename and all changes happen under one lock, so a plugin that is
// killed at any point leaves either a whole reservation or none.
package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrExhausted tells that a family's CIDRs have no free address.
var ErrExhausted = errors.New("no free address")

// Owner is a pod's sandbox and the interface in it.
type Owner struct {
	ContainerID string
	IfName      string
}

func (o Owner) String() string { return o.ContainerID + "\n" + o.IfName + "\n" }

func parseOwner(text string) (Owner, bool) {
	id, rest, ok := strings.Cut(text, "\n")
	name, _, ok2 := strings.Cut(rest, "\n")
	return Owner{id, name}, ok && ok2
}

// Store is a locked folder of reservations.
type Store struct {
	dir  string
	lock *os.File
}

// Open locks the folder until Close.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the folder of the address reservations: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the lock of the address reservations: %w", err)
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking the address reservations in %s: %w", dir, err), lock.Close())
	}
	return &Store{dir: dir, lock: lock}, nil
}

// Close lets others in.
func (s *Store) Close() error { return s.lock.Close() }

// Allocate reserves one address of each family that ranges has, IPv4 first.
// An owner that has addresses keeps them: a repeated call is the same call.
func (s *Store) Allocate(owner Owner, ranges []netip.Prefix) ([]netip.Addr, error) {
	taken, err := s.reservations()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, v6 := range []bool{false, true} {
		mine := slices.DeleteFunc(slices.Clone(ranges), func(p netip.Prefix) bool { return p.Addr().Is6() != v6 })
		if len(mine) == 0 {
			continue
		}
		addr, err := s.one(owner, mine, taken)
		if err != nil {
			return nil, errors.Join(err, s.Release(owner))
		}
		out = append(out, addr)
	}
	return out, nil
}

func (s *Store) one(owner Owner, ranges []netip.Prefix, taken map[netip.Addr]Owner) (netip.Addr, error) {
	for addr, who := range taken {
		if who == owner && slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			return addr, nil
		}
	}
	last := s.last(ranges[0].Addr().Is6())
	addr, ok := next(ranges, last, func(a netip.Addr) bool { _, used := taken[a]; return used })
	if !ok {
		return netip.Addr{}, fmt.Errorf("%w in %v: %d reservations", ErrExhausted, ranges, len(taken))
	}
	if err := s.write(addr.String(), owner.String()); err != nil {
		return netip.Addr{}, fmt.Errorf("reserving %s: %w", addr, err)
	}
	if err := s.write(lastName(addr.Is6()), addr.String()); err != nil {
		return netip.Addr{}, fmt.Errorf("remembering %s as the last address: %w", addr, err)
	}
	return addr, nil
}

// Release frees what owner has; nothing is no error.
func (s *Store) Release(owner Owner) error {
	_, err := s.releaseIf(func(o Owner) bool { return o == owner })
	return err
}

// Retain frees the addresses of all owners but the valid ones, and returns
// those that lost theirs.
func (s *Store) Retain(valid []Owner) ([]Owner, error) {
	return s.releaseIf(func(o Owner) bool { return !slices.Contains(valid, o) })
}

// Of returns the addresses of owner.
func (s *Store) Of(owner Owner) ([]netip.Addr, error) {
	taken, err := s.reservations()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for addr, who := range taken {
		if who == owner {
			out = append(out, addr)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}

func (s *Store) releaseIf(drop func(Owner) bool) ([]Owner, error) {
	taken, err := s.reservations()
	if err != nil {
		return nil, err
	}
	var dropped []Owner
	for addr, who := range taken {
		if !drop(who) {
			continue
		}
		if err := os.Remove(filepath.Join(s.dir, addr.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return dropped, fmt.Errorf("releasing %s: %w", addr, err)
		}
		if !slices.Contains(dropped, who) {
			dropped = append(dropped, who)
		}
	}
	return dropped, nil
}

// reservations reads the folder. What isn't named by an address is not ours.
func (s *Store) reservations() (map[netip.Addr]Owner, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("reading the address reservations: %w", err)
	}
	out := map[netip.Addr]Owner{}
	for _, e := range entries {
		addr, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("reading the reservation of %s: %w", addr, err)
		}
		// An unreadable owner (a disk that filled up, say) keeps its address
		// until garbage collection: better one too few than one twice.
		owner, _ := parseOwner(string(text))
		out[addr] = owner
	}
	return out, nil
}

func (s *Store) last(v6 bool) netip.Addr {
	text, err := os.ReadFile(filepath.Join(s.dir, lastName(v6)))
	if err != nil {
		return netip.Addr{} // only a hint where to go on
	}
	addr, _ := netip.ParseAddr(string(text))
	return addr
}

func lastName(v6 bool) string {
	if v6 {
		return "last.6"
	}
	return "last.4"
}

func (s *Store) write(name, content string) error {
	tmp := filepath.Join(s.dir, ".new")
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(s.dir, name))
}
