// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

func TestMain(m *testing.M) {
	if role := process.Role(); role != "" {
		if err := serveRole(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// What is measured is what it is said to be: in each setup every service leads to the server, and where there is a policy,
// a port that it doesn't name can't be reached.
func TestSetupsAreWhatTheySay(t *testing.T) {
	const count = 3
	b, err := open(t.TempDir(), setupsOf([]int{count}, regexp.MustCompile("")), t.Logf)
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range b.setups {
		err := l.inClient(func() error {
			for i := range count {
				if err := l.connectAndAsk(i); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", l.setup.Name, err)
		}
		err = l.inClient(func() error {
			s, err := dial(netip.AddrPortFrom(serverPod.Addr(), deniedPort))
			if err == nil {
				_ = unix.Close(s)
			}
			return err
		})
		if l.setup.Policy && err == nil {
			t.Errorf("%s: the policy lets a port through that it doesn't name", l.setup.Name)
		}
		if !l.setup.Policy && err != nil {
			t.Errorf("%s: without a policy: %v", l.setup.Name, err)
		}
	}
}

// A service's address leads nowhere without rules or programs, or else the figures of all setups would be of the direct one.
func TestDirectTranslatesNothing(t *testing.T) {
	b, err := open(t.TempDir(), []Setup{{Name: direct, Direct: true}}, t.Logf)
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.setups[0].inClient(func() error {
		s, err := dial(netip.AddrPortFrom(frontend(0), 80))
		if err == nil {
			_ = unix.Close(s)
		}
		return err
	}); err == nil {
		t.Error("a service's address can be reached")
	}
}
