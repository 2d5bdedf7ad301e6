// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
)

// listen opens the control socket. A predecessor that was killed left its
// socket behind; only our device's process may bear this name (the TUN device
// would have been busy otherwise), so it is removed without asking.
func listen(cfg Config) (net.Listener, error) {
	path := filepath.Join(cfg.RunDir, cfg.Device+".sock")
	if err := os.MkdirAll(cfg.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the control socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the former control socket: %w", err)
	}
	before := unix.Umask(0o077) // whoever may connect may read the private key
	l, err := net.Listen("unix", path)
	unix.Umask(before)
	if err != nil {
		return nil, fmt.Errorf("listening on the control socket %s: %w", path, err)
	}
	return l, nil
}

func accept(l net.Listener, dev *device.Device) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		go dev.IpcHandle(c) // closes the connection
	}
}
