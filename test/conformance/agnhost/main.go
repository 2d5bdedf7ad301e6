// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Agnhost stands in front of Kubernetes' program of the same name, which the suites' pods run. Where the kernel has no SCTP it
// speaks as much of it as the suites need, over raw sockets: packets on the wire are those of SCTP's handshake (RFC 9260), and
// that is what policies are about. By the name of worker it tries what Cyclonus wants tried. Everything else is the original's.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// original is where the image has Kubernetes' program.
const original = "/agnhost-upstream"

// servePrefix begins the variables that tell the porter which ports of SCTP it serves.
const servePrefix = "SERVE_SCTP_PORT_"

func main() {
	args := os.Args
	if filepath.Base(args[0]) == "worker" {
		if err := work(os.Stdin, os.Stdout); err != nil {
			fail(err)
		}
		return
	}
	if filepath.Base(args[0]) == "sh" || filepath.Base(args[0]) == "bash" {
		args = script(args)
	}
	if len(args) > 1 && !hasSCTP() {
		switch {
		case args[1] == "connect" && slices.Contains(args, "--protocol=sctp"):
			os.Exit(probe(args[2:]))
		case args[1] == "porter" && len(ports()) > 0:
			fail(serve(ports()))
		}
	}
	if len(args) == 1 {
		args = append(args, "pause") // what the original image does
	}
	args = append([]string{original}, args[1:]...)
	fail(fmt.Errorf("run %s: %w", original, unix.Exec(original, args, os.Environ())))
}

// script is what a shell would run: the image has no shell, and the suites' scripts are one command.
func script(args []string) []string {
	if len(args) == 3 && args[1] == "-c" {
		return strings.Fields(args[2])
	}
	fail(fmt.Errorf("%s: only -c with one command is understood", strings.Join(args, " ")))
	return nil
}

func hasSCTP() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

func ports() map[string]string {
	out := map[string]string{}
	for _, e := range os.Environ() {
		if port, value, ok := strings.Cut(strings.TrimPrefix(e, servePrefix), "="); ok && strings.HasPrefix(e, servePrefix) {
			out[port] = value
		}
	}
	return out
}

// probe tries a handshake, and says of it what the original says.
func probe(args []string) int {
	timeout, target := 5*time.Second, ""
	for _, a := range args {
		if text, is := strings.CutPrefix(a, "--timeout="); is {
			d, err := time.ParseDuration(text)
			if err != nil {
				fmt.Fprintln(os.Stderr, "OTHER:", err)
				return 1
			}
			timeout = d
		} else if !strings.HasPrefix(a, "-") {
			target = a
		}
	}
	switch answered, err := connect(target, timeout); {
	case err != nil:
		fmt.Fprintln(os.Stderr, "OTHER:", err)
	case !answered:
		fmt.Fprintln(os.Stderr, "TIMEOUT")
	default:
		return 0
	}
	return 1
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "agnhost:", err)
	os.Exit(1)
}
