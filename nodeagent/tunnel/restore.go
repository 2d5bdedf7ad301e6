// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package tunnel

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// greetEvery spreads the handshakes after a restart: each costs both sides a
// few elliptic curve multiplications.
const greetEvery = 2 * time.Millisecond

// restore reads the saved peers. A damaged file costs the peers until the
// agent tells them again, not the device: without a peer no packet leaves.
func restore(cfg Config) wireguard.State {
	saved, err := wireguard.LoadState(cfg.StateDir)
	if err != nil {
		cfg.Log.Error("the saved peers can't be used; starting without any until the agent sets them again", "error", err)
		return wireguard.State{}
	}
	return saved
}

// configure gives the device what was saved. No key yet is fine: the agent
// makes one and hands it over through the control socket.
func configure(dev *device.Device, cfg Config, saved wireguard.State) error {
	port := cfg.ListenPort
	if saved.ListenPort != 0 {
		port = saved.ListenPort
	}
	var b strings.Builder
	key, err := wireguard.LoadKey(cfg.StateDir)
	switch {
	case err == nil:
		fmt.Fprintf(&b, "private_key=%s\n", hex.EncodeToString(key[:]))
	case errors.Is(err, fs.ErrNotExist):
		cfg.Log.Info("no key yet; the agent will make one", "stateDir", cfg.StateDir)
	default:
		return err
	}
	fmt.Fprintf(&b, "listen_port=%d\n", port)
	for _, p := range saved.Peers {
		fmt.Fprintf(&b, "public_key=%s\n", hex.EncodeToString(p.PublicKey[:]))
		if p.Endpoint.IsValid() {
			fmt.Fprintf(&b, "endpoint=%s\n", p.Endpoint)
		}
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\nreplace_allowed_ips=true\n", saved.KeepaliveSeconds)
		for _, prefix := range p.AllowedIPs {
			fmt.Fprintf(&b, "allowed_ip=%s\n", prefix)
		}
	}
	if err := dev.IpcSet(b.String()); err != nil {
		return fmt.Errorf("restoring the peers of %s: %w", cfg.Device, err)
	}
	return nil
}

// greet begins a handshake with every restored peer. The peers still encrypt
// with keys that died with our predecessor, and would find out only after 15
// seconds without an answer.
func greet(ctx context.Context, dev *device.Device, peers []wireguard.Peer) {
	tick := time.NewTicker(greetEvery)
	defer tick.Stop()
	for _, p := range peers {
		peer := dev.LookupPeer(device.NoisePublicKey(p.PublicKey))
		if peer == nil || !p.Endpoint.IsValid() {
			continue
		}
		if err := peer.SendHandshakeInitiation(false); err != nil {
			continue // the peer's timers try again
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
