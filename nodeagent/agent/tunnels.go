// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// figuresAge is how old the device's figures in a report may be. Reading them costs every peer; it is less than the time
// between two reports.
const figuresAge = 10 * time.Second

// tunnels sums up the peers. What has not changed is not summed up again: a mesh has thousands of peers, and the state is
// looked at whenever anything changes.
type tunnels struct {
	tables *table.Tables

	mu      sync.Mutex
	figures map[record.PublicKey]figure
	read    time.Time // when figures were; zero: never
	sums    []report.Tunnels
	settled bool               // all rows were done when they were summed up
	changed [2]<-chan struct{} // the tables' watches since
}

// figure is what the device says of a peer.
type figure struct {
	handshake      time.Time
	received, sent int64
}

// peerReader is the device, as far as it is read here.
type peerReader interface {
	Peers() ([]kernelwg.Status, error)
}

// sum returns the tunnels by cluster. With an error they are summed up with the figures from before.
func (t *tunnels) sum(device peerReader, now time.Time) ([]report.Tunnels, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.read.IsZero() || now.Sub(t.read) >= figuresAge {
		err = t.readFigures(device, now)
	} else if t.settled && t.allDone() && !t.tablesChanged() {
		return t.sums, nil
	}
	t.changed = [2]<-chan struct{}{t.tables.Peers.Watch(), t.tables.PeerFlags.Watch()}
	t.settled = t.allDone()
	t.sums = report.SumTunnels(t.peers(), now)
	return t.sums, err
}

func (t *tunnels) readFigures(device peerReader, now time.Time) error {
	peers, err := device.Peers()
	if err != nil {
		return err
	}
	t.figures, t.read = make(map[record.PublicKey]figure, len(peers)), now
	for _, p := range peers {
		t.figures[record.PublicKey(p.PublicKey)] = figure{p.LastHandshake, p.ReceivedBytes, p.SentBytes}
	}
	return nil
}

// allDone says whether the kernel holds every row as wanted. That a row becomes done, or no longer is, does not change the
// tables.
func (t *tunnels) allDone() bool {
	peers, flags := t.tables.Peers.Count(), t.tables.PeerFlags.Count()
	return peers[table.Pending]+peers[table.Failed]+flags[table.Pending]+flags[table.Failed] == 0
}

func (t *tunnels) tablesChanged() bool {
	for _, c := range t.changed {
		select {
		case <-c:
			return true
		default:
		}
	}
	return false
}

// list returns every peer, by cluster and node.
func (t *tunnels) list() []report.Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.SortedFunc(t.peers(), func(x, y report.Peer) int {
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Node, y.Node))
	})
}

func (t *tunnels) peers() iter.Seq[report.Peer] {
	return func(yield func(report.Peer) bool) {
		ready := make([]bool, 1<<16) // by index
		t.tables.PeerFlags.Each(func(index uint16, row bpf.Peer, state table.State, _ error) bool {
			ready[index] = row.Flags&bpf.PeerReady != 0 && state == table.Done
			return true
		})
		t.tables.Peers.Each(func(index uint16, peer *topology.Peer, _ table.State, refusal error) bool {
			f := t.figures[peer.PublicKey]
			p := report.Peer{
				Cluster: peer.Cluster, Node: peer.Node, Endpoint: peer.Endpoint,
				Ready: ready[index], LastHandshake: f.handshake, ReceivedBytes: f.received, SentBytes: f.sent,
			}
			if refusal != nil {
				p.Error = refusal.Error()
			}
			return yield(p)
		})
	}
}

// addTunnels adds the device and its tunnels to the state.
func (a *Agent) addTunnels(s *report.State) {
	status := a.wireguard.Status()
	if status.Device == nil {
		return
	}
	s.Encryption = status.Implementation
	if !strings.Contains(s.Encryption, "WireGuard") {
		s.Encryption += " WireGuard"
	}
	s.PublicKey, s.ListenPort = status.Device.PublicKey().String(), status.Device.ListenPort()
	var err error
	if s.Tunnels, err = a.tunnels.sum(status.Device, time.Now()); err != nil {
		s.Problems = append(s.Problems, report.Problem{Code: "tunnel", Message: err.Error()})
	}
}
