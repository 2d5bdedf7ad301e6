// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// sample is the small web service that the demo and the end-to-end tests run in pods: a server that says which pod
// answered, and clients that prove whether traffic flows, is refused, or breaks. It is one static binary without a
// shell, so that an image of it needs nothing else.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  sample serve                                  HTTP on :8080, UDP echo on :8081
  sample call   [flags] URL                     one or more HTTP requests
  sample udp    [flags] HOST:PORT               one or more UDP echoes
  sample stream [flags] HOST:PORT               one long TCP connection; reports every gap

Every client exits 0 if all went well, 1 if not, 2 on wrong usage. "sample CLIENT -h" lists its flags.
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	verbs := map[string]func(context.Context, []string) error{
		"serve": serve, "call": call, "udp": callUDP, "stream": stream,
	}
	verb, ok := verbs[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "sample: unknown command %q\n\n%s", os.Args[1], usage)
		os.Exit(2)
	}
	if err := verb(ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}
