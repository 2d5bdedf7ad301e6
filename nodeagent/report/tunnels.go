// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"

	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// Peer is the tunnel to another node.
type Peer struct {
	Cluster       string         `json:"cluster"`
	Node          string         `json:"node"`
	Endpoint      netip.AddrPort `json:"endpoint,omitzero"`
	Ready         bool           `json:"ready"`
	LastHandshake time.Time      `json:"lastHandshake,omitzero"`
	ReceivedBytes int64          `json:"receivedBytes"`
	SentBytes     int64          `json:"sentBytes"`
	Error         string         `json:"error,omitempty"`
}

// Tunnels sums up the tunnels to one cluster's nodes.
type Tunnels struct {
	Cluster         string    `json:"cluster"`
	Wanted          int       `json:"wanted"`
	Ready           int       `json:"ready"`
	Connected       int       `json:"connected"` // ready, and the last handshake is no older than session
	LatestHandshake time.Time `json:"latestHandshake,omitzero"`
	Broken          []Peer    `json:"broken,omitempty"` // not ready: the first maxBroken by name
}

const (
	// session is how long WireGuard uses a handshake's keys (REJECT_AFTER_TIME of its whitepaper).
	session = 180 * time.Second
	// maxBroken tunnels are named: of a cluster, and of all clusters together.
	maxBroken, maxBrokenInAll = 8, 64
)

// SumTunnels sums up peers by cluster. Which of those that are not ready it names does not depend on their order.
func SumTunnels(peers iter.Seq[Peer], now time.Time) []Tunnels {
	at := map[string]int{}
	var out []Tunnels
	for p := range peers {
		i, ok := at[p.Cluster]
		if !ok {
			i = len(out)
			at[p.Cluster] = i
			out = append(out, Tunnels{Cluster: p.Cluster})
		}
		out[i].add(p, now)
	}
	slices.SortFunc(out, func(a, b Tunnels) int { return cmp.Compare(a.Cluster, b.Cluster) })
	room := maxBrokenInAll
	for i := range out {
		out[i].Broken = out[i].Broken[:min(len(out[i].Broken), room)]
		room -= len(out[i].Broken)
	}
	return out
}

func (t *Tunnels) add(p Peer, now time.Time) {
	t.Wanted++
	if p.LastHandshake.After(t.LatestHandshake) {
		t.LatestHandshake = p.LastHandshake
	}
	if p.Ready {
		t.Ready++
		if !p.LastHandshake.IsZero() && now.Sub(p.LastHandshake) <= session {
			t.Connected++
		}
		return
	}
	n, _ := slices.BinarySearchFunc(t.Broken, p, func(a, b Peer) int { return cmp.Compare(a.Node, b.Node) })
	if n == maxBroken {
		return
	}
	t.Broken = slices.Insert(t.Broken[:min(len(t.Broken), maxBroken-1)], n, p)
}

func (t *Tunnels) message() *relayv1.Tunnels {
	m := &relayv1.Tunnels{
		Cluster: t.Cluster, Wanted: uint32(t.Wanted), Ready: uint32(t.Ready), Connected: uint32(t.Connected),
		LatestHandshakeUnix: unix(t.LatestHandshake),
	}
	for _, p := range t.Broken {
		m.Broken = append(m.Broken, &relayv1.BrokenTunnel{Node: p.Node, LastHandshakeUnix: unix(p.LastHandshake), Error: shorten(p.Error)})
	}
	return m
}

// unix is the time in seconds; 0 for none.
func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
