// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tunnel is the process that serves the node's WireGuard device where
// the kernel has no WireGuard. Where it has, the process has nothing to do.
//
// It stands alone: it takes key, port and peers from the node's disk, where
// the agent's driver (package kernel/wireguard) put them, and listens for
// changes on WireGuard's usual control socket. The device is persistent: its
// routes and the programs attached to it outlive this process, so a restart
// is a gap of milliseconds and never a way around the encryption.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// Config of the process. Zero values mean the defaults of package wireguard.
type Config struct {
	Device     string
	StateDir   string
	ListenPort int
	MTU        int
	// RunDir is where the control socket goes. Clients look in
	// wireguard.SocketDir only.
	RunDir string
	Log    *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Device == "" {
		c.Device = wireguard.DefaultDevice
	}
	if c.StateDir == "" {
		c.StateDir = wireguard.DefaultStateDir
	}
	if c.ListenPort == 0 {
		c.ListenPort = wireguard.DefaultPort
	}
	if c.MTU == 0 {
		c.MTU = wireguard.DefaultMTU
	}
	if c.RunDir == "" {
		c.RunDir = wireguard.SocketDir
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// handshakeGap is how long a peer takes a second handshake for a flood (20 ms)
// and drops it; the next would come 5 seconds later. Our predecessor may have
// begun one right before it died.
const handshakeGap = 25 * time.Millisecond

// Run serves the device until ctx ends or the device breaks.
func Run(ctx context.Context, cfg Config) error {
	cfg = cfg.withDefaults()
	impl, err := wireguard.Detect(cfg.Device)
	if err != nil {
		return err
	}
	if impl == wireguard.Kernel {
		cfg.Log.Info("the kernel has WireGuard; this process has nothing to do", "device", cfg.Device)
		<-ctx.Done()
		return nil
	}
	return serve(ctx, cfg)
}

func serve(ctx context.Context, cfg Config) error {
	started := time.Now()
	saved := restore(cfg)
	if saved.MTU != 0 {
		cfg.MTU = saved.MTU
	}
	tunDevice, err := openTUN(cfg)
	if err != nil {
		return err
	}
	dev := device.NewDevice(tunDevice, conn.NewDefaultBind(), logger(cfg))
	defer dev.Close()
	if len(saved.Peers) > 0 {
		time.Sleep(time.Until(started.Add(handshakeGap)))
	}
	if err := configure(dev, cfg, saved); err != nil {
		return err
	}
	link, err := netlink.LinkByName(cfg.Device)
	if err != nil {
		return fmt.Errorf("looking up device %s: %w", cfg.Device, err)
	}
	if err := wireguard.ShapeLink(link, cfg.MTU); err != nil {
		return err
	}
	if err := dev.Up(); err != nil {
		return fmt.Errorf("listening on UDP port %d: %w", cfg.ListenPort, err)
	}
	control, err := listen(cfg)
	if err != nil {
		return err
	}
	defer control.Close()
	go accept(control, dev)
	cfg.Log.Info("serving the tunnel", "device", cfg.Device, "mtu", cfg.MTU, "port", cfg.ListenPort, "restoredPeers", len(saved.Peers))
	go greet(ctx, dev, saved.Peers)

	select {
	case <-ctx.Done():
		return nil
	case <-dev.Wait():
		return fmt.Errorf("device %s stopped working: was it deleted?", cfg.Device)
	}
}

// openTUN attaches to the persistent device, or makes it.
func openTUN(cfg Config) (tun.Device, error) {
	t, err := tun.CreateTUN(cfg.Device, cfg.MTU)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("device %s is served by another process: %w", cfg.Device, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the TUN device %s: %w", cfg.Device, err)
	}
	if err := persist(t); err != nil {
		return nil, errors.Join(fmt.Errorf("making the TUN device %s persistent: %w", cfg.Device, err), t.Close())
	}
	return t, nil
}

func persist(t tun.Device) error {
	raw, err := t.File().SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Control(func(fd uintptr) { result = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	return errors.Join(err, result)
}

func logger(cfg Config) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, args ...any) {
			if cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
				cfg.Log.Debug(fmt.Sprintf(format, args...))
			}
		},
		Errorf: func(format string, args ...any) { cfg.Log.Error(fmt.Sprintf(format, args...)) },
	}
}
