// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
)

// peers is the device as a target of rows. It remembers which key it gave an index: rows go by index, the device by key.
type peers struct {
	device Device
	keys   map[uint16]wireguard.Key
	users  map[wireguard.Key]int     // how many indexes have a key
	rows   map[uint16]*topology.Peer // as last set
	// owed are keys that an index had before and that the device did not let go yet.
	owed map[uint16][]wireguard.Key
	// ready are indexes whose key the device holds. One that can't be changed for a moment keeps working as it was.
	ready map[uint16]bool
	// news are indexes that became ready, or no longer are, since the datapath was last informed.
	news map[uint16]struct{}
}

func newPeers() *peers {
	return &peers{
		keys: map[uint16]wireguard.Key{}, users: map[wireguard.Key]int{}, rows: map[uint16]*topology.Peer{}, owed: map[uint16][]wireguard.Key{},
		ready: map[uint16]bool{}, news: map[uint16]struct{}{},
	}
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
	p.setKey(index, &key)
	p.rows[index] = peer
	p.set(index, true)
	if had && former != key {
		p.owed[index] = append(p.owed[index], former)
	}
	return p.settle(index)
}

func (p *peers) Delete(_ context.Context, index uint16) error {
	if key, had := p.keys[index]; had {
		p.setKey(index, nil)
		delete(p.rows, index)
		p.set(index, false)
		p.owed[index] = append(p.owed[index], key)
	}
	return p.settle(index)
}

// settle removes the keys that an index no longer has, unless another one has them now: a node may get another index.
func (p *peers) settle(index uint16) error {
	for len(p.owed[index]) > 0 {
		key := p.owed[index][0]
		if p.users[key] == 0 {
			if err := p.device.RemovePeer(key); err != nil {
				return err
			}
		}
		p.owed[index] = p.owed[index][1:]
	}
	delete(p.owed, index)
	return nil
}

// setKey gives an index a key, or none.
func (p *peers) setKey(index uint16, key *wireguard.Key) {
	if former, had := p.keys[index]; had {
		if p.users[former]--; p.users[former] == 0 {
			delete(p.users, former)
		}
		delete(p.keys, index)
	}
	if key != nil {
		p.keys[index] = *key
		p.users[*key]++
	}
}

// Have is what the device holds as it was set: others' tools change devices as well. What an earlier run set is not known by
// index; setting it once more costs nothing, and strangers are pruned by key.
func (p *peers) Have(context.Context) (map[uint16]*topology.Peer, error) {
	if len(p.rows) == 0 {
		return nil, nil
	}
	held, err := p.device.Peers()
	if err != nil {
		return nil, fmt.Errorf("reading the device's peers: %w", err)
	}
	allowed := make(map[wireguard.Key][]netip.Prefix, len(held))
	for _, h := range held {
		allowed[h.PublicKey] = h.AllowedIPs
	}
	out := make(map[uint16]*topology.Peer, len(p.rows))
	for index, row := range p.rows {
		if have, ok := allowed[p.keys[index]]; ok && samePrefixes(have, row.AllowedIPs) {
			out[index] = row
		}
	}
	return out, nil
}

// samePrefixes compares without regard to the order.
func samePrefixes(a, b []netip.Prefix) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, netip.Prefix.Compare)
	slices.SortFunc(b, netip.Prefix.Compare)
	return slices.Equal(a, b)
}
