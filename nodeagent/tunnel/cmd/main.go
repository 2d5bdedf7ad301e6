// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fairlead-tunnel serves the node's WireGuard device where the kernel
// has no WireGuard. It is a program and a DaemonSet of its own, so that neither
// a crash nor an upgrade of the agent touches the tunnel.
package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/tunnel"
)

func main() {
	var cfg tunnel.Config
	flag.StringVar(&cfg.Device, "device", wireguard.DefaultDevice, "name of the tunnel device")
	flag.StringVar(&cfg.StateDir, "state-dir", wireguard.DefaultStateDir, "folder with the node's key and peers")
	flag.StringVar(&cfg.RunDir, "run-dir", wireguard.SocketDir, "folder of the control socket")
	flag.IntVar(&cfg.ListenPort, "listen-port", wireguard.DefaultPort, "UDP port, until the agent has saved another")
	flag.IntVar(&cfg.MTU, "mtu", wireguard.DefaultMTU, "MTU of the device, until the agent has saved another")
	verbose := flag.Bool("verbose", false, "log every handshake")
	flag.Parse()

	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	cfg.Log = slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	if err := tunnel.Run(ctx, cfg); err != nil {
		cfg.Log.Error("the tunnel ended", "error", err)
		os.Exit(1)
	}
}
