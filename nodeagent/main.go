// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// nodeagent is everything of Fairlead that runs on a node.
//
//	nodeagent [run]      the agent: stream → tables → plan → tables → kernel
//	nodeagent wireguard  the process of the node's WireGuard device, where the kernel has none
//	nodeagent observe    what the datapath decided, from the running agent
//	nodeagent status     how the running agent is doing
//	nodeagent cleanup    takes everything that is ours off the node
//	nodeagent version
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// version is set when the binary is built.
var version = "dev"

var commands = map[string]func(context.Context, []string) error{
	"run":       run,
	"wireguard": runTunnel,
	"observe":   observe,
	"status":    status,
	"cleanup":   cleanup,
	"version": func(context.Context, []string) error {
		fmt.Fprintln(os.Stdout, version)
		return nil
	},
}

func main() {
	name, args := "run", os.Args[1:]
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		name, args = args[0], args[1:]
	}
	command, ok := commands[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "nodeagent: there is no command %q; there are run, wireguard, observe, status, cleanup and version\n", name)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := command(ctx, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "nodeagent %s: %v\n", name, err)
		os.Exit(1)
	}
}

func logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}
