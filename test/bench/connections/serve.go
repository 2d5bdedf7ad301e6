// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// ServerConfig lists the network namespaces to listen in.
type ServerConfig struct{ Namespaces []string }

// serveServers answers in every setup's server pod: one byte for each byte that comes, until the client closes. Plain
// system calls on threads of their own, so that no scheduler but the kernel's is measured.
func serveServers() error {
	return process.Serve(process.Handlers{
		"start": process.Call(func(cfg ServerConfig) (struct{}, error) {
			for _, ns := range cfg.Namespaces {
				for _, port := range []int{backendPort, deniedPort} {
					ready := make(chan error)
					go listen(ns, port, ready)
					if err := <-ready; err != nil {
						return struct{}{}, err
					}
				}
			}
			return struct{}{}, nil
		}),
	})
}

func listen(path string, port int, ready chan<- error) {
	runtime.LockOSThread()
	s, err := func() (int, error) {
		f, err := os.Open(path)
		if err != nil {
			return -1, fmt.Errorf("find the server's namespace: %w", err)
		}
		defer f.Close()
		if err := netns.Set(netns.NsHandle(f.Fd())); err != nil {
			return -1, fmt.Errorf("enter the server's namespace: %w", err)
		}
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("make a socket: %w", err)
		}
		if err := unix.Bind(s, &unix.SockaddrInet4{Port: port}); err != nil {
			return -1, fmt.Errorf("bind port %d: %w", port, err)
		}
		return s, errors.Join(unix.Listen(s, 1024), firstOfAll())
	}()
	ready <- err
	if err != nil {
		return
	}
	buf := make([]byte, 64)
	for {
		c, _, err := unix.Accept4(s, unix.SOCK_CLOEXEC)
		if err != nil {
			continue
		}
		for {
			n, err := unix.Read(c, buf)
			if err != nil || n == 0 {
				break
			}
			if _, err := unix.Write(c, buf[:n]); err != nil {
				break
			}
		}
		_ = unix.Close(c)
	}
}
