// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"context"
	"fmt"

	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// peers is the device as a target of rows. It remembers which key it gave an index: rows go by index, the device by key.
type peers struct {
	device Device
	keys   map[uint16]wireguard.Key
	// ready are indexes whose key the device holds. One that can't be changed for a moment keeps working as it was.
	ready map[uint16]bool
	// news are indexes that became ready, or no longer are, since the datapath was last informed.
	news map[uint16]struct{}
}

func newPeers() *peers {
	return &peers{keys: map[uint16]wireguard.Key{}, ready: map[uint16]bool{}, news: map[uint16]struct{}{}}
}

func (p *peers) set(index uint16, ready bool) {
	if p.ready[index] == ready {
		return
	}
	if ready {
		p.ready[index] = true
	} else {
		delete(p.ready, index)
	}
	p.news[index] = struct{}{}
}

func (p *peers) Update(_ context.Context, index uint16, peer *topology.Peer) error {
	key := wireguard.Key(peer.PublicKey)
	former, had := p.keys[index]
	if had && former != key {
		p.set(index, false)
	}
	err := p.device.SetPeer(wireguard.Peer{PublicKey: key, Endpoint: peer.Endpoint, AllowedIPs: peer.AllowedIPs})
	if err != nil {
		return fmt.Errorf("peer %s/%s: %w", peer.Cluster, peer.Node, err)
	}
	p.keys[index] = key
	p.set(index, true)
	if had && former != key && !p.used(former) {
		return p.device.RemovePeer(former)
	}
	return nil
}

func (p *peers) Delete(_ context.Context, index uint16) error {
	key, had := p.keys[index]
	if !had {
		return nil
	}
	delete(p.keys, index)
	p.set(index, false)
	if p.used(key) {
		return nil // the node got another index
	}
	if err := p.device.RemovePeer(key); err != nil {
		p.keys[index] = key
		return err
	}
	return nil
}

func (p *peers) used(key wireguard.Key) bool {
	for _, k := range p.keys {
		if k == key {
			return true
		}
	}
	return false
}

// Have is empty: setting a peer that is set already costs nothing, and strangers are pruned by key.
func (p *peers) Have(context.Context) (map[uint16]*topology.Peer, error) { return nil, nil }
