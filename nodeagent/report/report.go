// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report tells how this node is doing: to the operator, and to whoever asks on the node's socket.
//
//	every part of the agent ──► State (one moment) ──► relay.ReportRequest ──► operator ──► MeshNode
//	                                              └──► JSON on the agent's socket
package report

import (
	"cmp"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// State is the agent at one moment.
type State struct {
	Node    string `json:"node"`
	Cluster string `json:"cluster,omitempty"`
	Version string `json:"version"`

	Relay   Relay    `json:"relay"`
	Applied Position `json:"applied"` // what is in the kernel

	Datapath       string `json:"datapath,omitempty"`
	Encryption     string `json:"encryption,omitempty"`
	PublicKey      string `json:"publicKey,omitempty"`
	ListenPort     int    `json:"listenPort,omitempty"`
	PodsInPodCIDRs bool   `json:"podsInPodCIDRs"`

	Endpoints        int       `json:"endpoints"`
	EndpointsFailing int       `json:"endpointsFailing"`
	Services         int       `json:"services"`
	Tables           []Table   `json:"tables,omitempty"`
	Maps             []Map     `json:"maps,omitempty"`
	Policies         []Policy  `json:"policies,omitempty"`
	Tunnels          []Tunnels `json:"tunnels,omitempty"` // by cluster
	Peers            []Peer    `json:"peers,omitempty"`   // each of them, for people; not reported
	Drops            []Drop    `json:"drops,omitempty"`
	Problems         []Problem `json:"problems,omitempty"`
}

// Relay is the agent's upstream.
type Relay struct {
	Connected bool      `json:"connected"`
	Target    string    `json:"target,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	Error     string    `json:"error,omitempty"`
	Position  Position  `json:"position"` // what was received
}

// Position is a place in the stream.
type Position struct {
	Epoch    string `json:"epoch,omitempty"`
	Revision uint64 `json:"revision"`
}

// PositionOf converts; nil is the zero position.
func PositionOf(p *relayv1.ResumePoint) Position {
	return Position{Epoch: p.GetEpoch(), Revision: p.GetRevision()}
}

// Table counts the rows of a desired table.
type Table struct {
	Name    string `json:"name"`
	Rows    int    `json:"rows"`
	Pending int    `json:"pending,omitempty"`
	Failed  int    `json:"failed,omitempty"`
}

// Policy is enforced on this node, or the error says why not. The warning is of one that is enforced, and not quite as its
// author meant it.
type Policy struct {
	Key      string `json:"key"`
	Revision string `json:"revision,omitempty"`
	Content  string `json:"content,omitempty"`
	Error    string `json:"error,omitempty"`
	Warning  string `json:"warning,omitempty"`
}

// Drop counts packets.
type Drop struct {
	Reason  string `json:"reason"`
	Hook    string `json:"hook"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Problem is something an administrator should read.
type Problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// DropsOf turns the datapath's counters into drops, largest first.
func DropsOf[K interface {
	Name() (bpf.Reason, bpf.Hook)
	comparable
}](counters map[K]bpf.Counter) []Drop {
	var out []Drop
	for k, c := range counters {
		reason, hook := k.Name()
		if reason.IsDrop() {
			out = append(out, Drop{Reason: reason.String(), Hook: hook.String(), Packets: c.Packets, Bytes: c.Bytes})
		}
	}
	slices.SortFunc(out, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(b.Packets, a.Packets), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Hook, b.Hook))
	})
	return out
}

// Bounds of what goes up: an operator stores it, for each of thousands of nodes.
const (
	maxProblems = 32
	maxMessage  = 512
)

// Request is the state as the operator gets it.
func (s State) Request() *relayv1.ReportRequest {
	r := &relayv1.ReportRequest{
		Node: s.Node, AgentVersion: s.Version,
		WireguardPublicKey: s.PublicKey, WireguardPort: uint32(s.ListenPort),
		Endpoints: uint32(s.Endpoints), EndpointsFailing: uint32(s.EndpointsFailing), Services: uint32(s.Services),
		Encryption: s.Encryption, PodsInPodCidrs: s.PodsInPodCIDRs, Datapath: s.Datapath,
	}
	if s.Applied != (Position{}) {
		r.Applied = &relayv1.ResumePoint{Epoch: s.Applied.Epoch, Revision: s.Applied.Revision}
	}
	for _, p := range s.Policies {
		r.Policies = append(r.Policies, &relayv1.PolicyRealization{Key: p.Key, Revision: p.Revision, Content: p.Content, Error: shorten(p.Error), Warning: shorten(p.Warning)})
	}
	for _, t := range s.Tunnels {
		r.Tunnels = append(r.Tunnels, t.message())
	}
	for _, d := range s.Drops {
		r.Drops = append(r.Drops, &relayv1.Counter{Reason: d.Reason, Direction: d.Hook, Packets: d.Packets, Bytes: d.Bytes})
	}
	for i, p := range s.Problems {
		if i == maxProblems {
			break
		}
		r.Problems = append(r.Problems, &relayv1.Problem{Code: p.Code, Message: shorten(p.Message)})
	}
	return r
}

func shorten(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return s[:maxMessage-3] + "..."
}
