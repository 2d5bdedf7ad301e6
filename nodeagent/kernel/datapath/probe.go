// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// What a node must have. Each is wrapped with what was found instead.
var (
	ErrNoBPFFS      = errors.New("no BPF file system")
	ErrNoBTF        = errors.New("the kernel has no type information (CONFIG_DEBUG_INFO_BTF)")
	ErrNoPermission = errors.New("not allowed to use eBPF (CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed)")
)

// checkKernel says in plain words what is missing, before the kernel says EINVAL.
func checkKernel(dir string) error {
	if err := checkBPFFS(dir); err != nil {
		return err
	}
	if err := features.HaveProgramType(ebpf.SchedCLS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w: %w", ErrNoPermission, err)
		}
		return fmt.Errorf("the kernel can't load classifiers: %w", err)
	}
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoBTF, err)
	}
	return nil
}

// MountBPFFS mounts a BPF file system where dir is to be, if there is none. With a mount that propagates to the host it
// outlives the agent.
func MountBPFFS(dir string) error {
	err := checkBPFFS(dir)
	if !errors.Is(err, ErrNoBPFFS) {
		return err
	}
	root := filepath.Dir(dir)
	if merr := unix.Mount("bpf", root, "bpf", 0, "mode=0700"); merr != nil {
		return fmt.Errorf("%w, and mounting it failed: %w", err, merr)
	}
	return checkBPFFS(dir)
}

// checkBPFFS walks up from dir, which need not exist yet, to its file system.
func checkBPFFS(dir string) error {
	at := dir
	for {
		var fs unix.Statfs_t
		err := unix.Statfs(at, &fs)
		if errors.Is(err, os.ErrNotExist) && at != filepath.Dir(at) {
			at = filepath.Dir(at)
			continue
		}
		if err != nil {
			return fmt.Errorf("looking at %s: %w", at, err)
		}
		if fs.Type != unix.BPF_FS_MAGIC {
			return fmt.Errorf("%w at %s: mount one (mount -t bpf bpf /sys/fs/bpf), or let the pod mount the host's", ErrNoBPFFS, at)
		}
		return nil
	}
}

// probeMode attaches to a device that can't exist: a kernel with TCX misses the device, one without it misses TCX.
func (d *Datapath) probeMode() Mode {
	l, err := link.AttachTCX(link.TCXOptions{Program: d.programs.PodEgress, Attach: ebpf.AttachTCXIngress})
	if err == nil {
		if err := l.Close(); err != nil {
			d.log.Debug("closing the probe", "error", err)
		}
		return TCX
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		d.log.Info("the kernel has no TCX (before 6.6); programs are clsact filters", "reason", err)
		return Clsact
	}
	return TCX
}
