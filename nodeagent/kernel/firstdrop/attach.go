// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package firstdrop

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Close attaches the pinned programs to an interface. Programs of ours that are there already stay: they may be the agent's,
// and newer ones.
func Close(dir string, ifindex uint32) error {
	mode, programs, err := open(dir)
	if err != nil {
		return err
	}
	defer closeAll(programs)
	for i, h := range podHooks {
		if mode == Clsact {
			err = AddFilter(h, programs[i], ifindex)
		} else {
			err = pinLink(LinkDir(dir), h, programs[i], ifindex)
		}
		if err != nil {
			return fmt.Errorf("attaching %s to interface %d: %w", h.Name, ifindex, err)
		}
	}
	return nil
}

// Options of a link. First on the way from a pod, so that nothing acts on a forged source; last on the way to it, so that
// what others rewrote is what gets judged.
func Options(h Hook, p *ebpf.Program, ifindex uint32) link.TCXOptions {
	o := link.TCXOptions{Interface: int(ifindex), Program: p, Attach: ebpf.AttachTCXEgress, Anchor: link.Tail()}
	if h.Ingress {
		o.Attach, o.Anchor = ebpf.AttachTCXIngress, link.Head()
	}
	return o
}

// Attempts, and the pause between them, of somebody who wants to attach what somebody else is attaching. A program is on a
// hook once at most, so the second is refused, and finds the first one's pin a moment later.
const (
	Attempts = 50
	Pause    = 2 * time.Millisecond
)

// pinLink makes a link and pins it where the agent looks for it.
func pinLink(dir string, h Hook, p *ebpf.Program, ifindex uint32) error {
	path := filepath.Join(dir, h.Link(ifindex))
	for n := 0; ; n++ {
		there, err := pinned(path, ifindex)
		if there || err != nil {
			return err
		}
		l, err := link.AttachTCX(Options(h, p, ifindex))
		if err == nil {
			err = l.Pin(path)
			_ = l.Close() // without a pin, that detaches it
		}
		if !errors.Is(err, fs.ErrExist) || n == Attempts {
			return err
		}
		time.Sleep(Pause)
	}
}

// pinned says whether there is a link on the interface. One that a former interface of this index left is removed.
func pinned(path string, ifindex uint32) (bool, error) {
	there, err := holds(path, ifindex)
	if there || errors.Is(err, fs.ErrNotExist) {
		return there, nil
	}
	if err != nil {
		return false, err
	}
	// It is moved away first and looked at again: the agent may have put its own in that place meanwhile.
	aside := fmt.Sprintf("%s_%d", path, os.Getpid())
	if err := os.Rename(path, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	there, err = holds(aside, ifindex)
	switch {
	case err != nil:
		return false, err
	case there:
		return true, os.Rename(aside, path)
	}
	return false, os.Remove(aside)
}

func holds(path string, ifindex uint32) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, fmt.Errorf("opening pinned link %s: %w", path, err)
	}
	defer l.Close()
	return SitsOn(l, ifindex)
}

// ErrOpen says that an interface lacks a program.
var ErrOpen = errors.New("the interface is not closed")

// Check says whether programs of ours are on both hooks of an interface.
func Check(dir string, ifindex uint32) error {
	mode, programs, err := open(dir)
	closeAll(programs)
	if err != nil {
		return err
	}
	for _, h := range podHooks {
		var there bool
		if mode == Clsact {
			var id uint32
			id, err = FilterProgram(h, ifindex)
			there = id != 0
		} else {
			there, err = holds(filepath.Join(LinkDir(dir), h.Link(ifindex)), ifindex)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
		}
		if err != nil {
			return fmt.Errorf("looking for %s on interface %d: %w", h.Name, ifindex, err)
		}
		if !there {
			return fmt.Errorf("%w: %s is not on interface %d", ErrOpen, h.Name, ifindex)
		}
	}
	return nil
}

// Forget removes the pins of an interface that is gone. Those of one that is still there stay: it would be open.
func Forget(dir string, ifindex uint32) error {
	var errs []error
	for _, h := range podHooks {
		if there, err := pinned(filepath.Join(LinkDir(dir), h.Link(ifindex)), ifindex); err != nil {
			errs = append(errs, err)
		} else if there {
			errs = append(errs, fmt.Errorf("interface %d still bears %s: %w", ifindex, h.Name, unix.EBUSY))
		}
	}
	return errors.Join(errs...)
}
