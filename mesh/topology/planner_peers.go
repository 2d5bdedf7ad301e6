// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// usableKey is the key with which a node would be a peer; zero if it can't be one.
func (p *Planner) usableKey(n *nodeState) record.PublicKey {
	if !p.enc.On || n.rec == nil || n.self || n.rec.PublicKey.IsZero() {
		return record.PublicKey{}
	}
	if kind, ok := unreachable(n.rec); ok {
		n.problems = append(n.problems, problem{kind: kind, about: n.String()})
		return record.PublicKey{}
	}
	return n.rec.PublicKey
}

func (p *Planner) setKey(n *nodeState, key record.PublicKey) {
	if n.key == key {
		return
	}
	if !n.key.IsZero() {
		list := p.keys[n.key]
		if i, there := slices.BinarySearchFunc(list, n, (*nodeState).compare); there {
			list = slices.Delete(list, i, i+1)
		}
		if p.keys[n.key] = list; len(list) == 0 {
			delete(p.keys, n.key)
		}
		p.dirtyKeys[n.key] = struct{}{}
		p.setSameKey(n, nil)
	}
	if n.key = key; key.IsZero() {
		p.choose(n, false)
		return
	}
	list := p.keys[key]
	i, _ := slices.BinarySearchFunc(list, n, (*nodeState).compare)
	p.keys[key] = slices.Insert(list, i, n)
	p.dirtyKeys[key] = struct{}{}
	if n.index != 0 {
		p.dirtyPeers[n.index] = struct{}{}
	}
}

// setSameKey says which other node is the peer with this node's key.
func (p *Planner) setSameKey(n, first *nodeState) {
	if n.sameKey == first {
		return
	}
	if n.sameKey != nil {
		p.problems.remove(problem{kind: problemSameKey, about: n.String(), other: n.sameKey.String()})
	}
	if n.sameKey = first; first != nil {
		p.problems.add(problem{kind: problemSameKey, about: n.String(), other: first.String()})
	}
}

// choose says whether a node is a peer.
func (p *Planner) choose(n *nodeState, chosen bool) {
	if n.chosen != chosen {
		n.chosen = chosen
		p.rechosen = append(p.rechosen, n)
	}
}

// planPeers decides who is a peer, with which index.
func (p *Planner) planPeers(d *Delta) {
	for _, key := range take(&p.dirtyKeys) {
		for i, n := range p.keys[key] {
			if i > 0 {
				p.setSameKey(n, p.keys[key][0])
			} else {
				p.setSameKey(n, nil)
			}
			p.choose(n, i == 0)
		}
	}
	p.planIndexes()
	for _, i := range take(&p.dirtyPeers) {
		p.planPeer(d, i)
	}
}

func (p *Planner) planIndexes() {
	if len(p.rechosen) == 0 {
		return
	}
	waiting := len(p.waiting)
	want := p.waiting
	for _, n := range p.rechosen {
		switch {
		case n.chosen && n.index == 0:
			want = append(want, n)
		case !n.chosen && n.index != 0:
			p.dirtyPeers[n.index] = struct{}{}
			p.indexes.release(n)
			p.markNodeAddresses(n)
			p.markPods(n)
		}
	}
	p.rechosen = nil
	want = slices.DeleteFunc(want, func(n *nodeState) bool { return !n.chosen })
	slices.SortFunc(want, (*nodeState).compare)
	want = slices.Compact(want)
	p.waiting = p.indexes.assign(want)
	p.problems.count(problemNoIndex, "", len(p.waiting)-waiting)
	for _, n := range want {
		if n.index != 0 {
			p.dirtyPeers[n.index] = struct{}{}
			p.markNodeAddresses(n)
			p.markPods(n)
		}
	}
	p.indexes.endStep()
}

func (p *Planner) planPeer(d *Delta, index uint16) {
	var after *Peer
	before := p.peers[index]
	if n := p.indexes.peers[index]; n != nil {
		after = &Peer{
			Cluster: n.cluster.name, Node: n.name, PublicKey: n.key,
			Endpoint:   netip.AddrPortFrom(n.addrs[0], n.rec.Port),
			AllowedIPs: n.allowed, Index: index,
		}
	}
	switch {
	case before == nil && after == nil, before != nil && after != nil && before.equal(after):
		return
	case after == nil:
		delete(p.peers, index)
	default:
		p.peers[index] = after
	}
	d.Peers = append(d.Peers, newPeerChange(index, before, after))
}

func (p *Peer) equal(q *Peer) bool {
	return p.Cluster == q.Cluster && p.Node == q.Node && p.PublicKey == q.PublicKey && p.Endpoint == q.Endpoint &&
		slices.Equal(p.AllowedIPs, q.AllowedIPs)
}
