// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package flow is how a verdict of the datapath is told: what the agent's observe prints as JSON lines and everybody
// else reads. Fields are only added. The package is pure and depends on nothing.
package flow

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Verdict is what became of a packet.
type Verdict string

// Verdicts.
const (
	Allowed Verdict = "ALLOWED"
	Denied  Verdict = "DENIED"  // a policy said no
	Dropped Verdict = "DROPPED" // something else did; see Reason
	Audited Verdict = "AUDITED" // let through; a policy in Audit mode would have denied it
)

// Flow is one verdict: of a flow's first packet, of a later one that was judged anew, or of a dropped one.
type Flow struct {
	Time      time.Time `json:"time"`
	Node      string    `json:"node"`
	Cluster   string    `json:"cluster,omitempty"` // of the node
	Verdict   Verdict   `json:"verdict"`
	Reason    string    `json:"reason"` // as in the drop counters, e.g. "default-denied"
	Hook      string    `json:"hook"`   // where it was seen, e.g. "pod-ingress"
	Direction string    `json:"direction,omitempty"`

	Source      Peer   `json:"source"`
	Destination Peer   `json:"destination"`
	Protocol    string `json:"protocol,omitempty"` // "TCP", "UDP", "ICMP", …
	TCPFlags    string `json:"tcpFlags,omitempty"` // e.g. "SYN"
	ICMPType    string `json:"icmpType,omitempty"` // e.g. "EchoRequest", or a number; the source's port is then the message's id

	// Policy is whose rule decided; absent if none did.
	Policy *Policy `json:"policy,omitempty"`

	Encrypted   bool   `json:"encrypted,omitempty"`   // came through the tunnel
	Reevaluated bool   `json:"reevaluated,omitempty"` // policy changed under a running flow
	Packets     uint32 `json:"packets,omitempty"`     // this one and like ones before it that went untold
	Bytes       uint32 `json:"bytes,omitempty"`       // of this packet
}

// Peer is one end of a flow.
type Peer struct {
	Cluster   string `json:"cluster,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Kind      string `json:"kind,omitempty"` // what it is if no pod: "host", "remote-node", "world", "unknown", "cidr"
	Identity  uint32 `json:"identity"`
	Address   string `json:"address,omitempty"`
	Port      uint16 `json:"port,omitempty"`
}

// Policy names a rule and where it came from.
type Policy struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Rule      string `json:"rule,omitempty"`     // e.g. "ingress default deny"
	Source    string `json:"source,omitempty"`   // PolicySource, namespace/name
	URL       string `json:"url,omitempty"`      // repository
	Revision  string `json:"revision,omitempty"` // branch@sha1:commit
	Path      string `json:"path,omitempty"`     // file
}

// String writes the flow as one line.
func (f Flow) String() string {
	parts := []string{string(f.Verdict), fmt.Sprintf("%s → %s", f.Source.name(false), f.Destination.name(true)+f.port())}
	if f.Policy != nil {
		parts = append(parts, f.Policy.String())
	} else if f.Verdict == Dropped {
		parts = append(parts, f.Reason)
	}
	return strings.Join(parts, "  ")
}

func (f Flow) port() string {
	if f.Protocol == "" {
		return ""
	}
	if f.ICMPType != "" {
		return ":" + f.ICMPType + "/" + f.Protocol
	}
	return "/" + f.Protocol
}

// name is what a reader knows the peer by; a destination's port says which service it is, a source's says little.
func (p Peer) name(port bool) string {
	s := p.Address
	switch {
	case p.Pod != "":
		s = p.Cluster + "/" + p.Namespace + "/" + p.Pod
	case p.Kind != "":
		s = fmt.Sprintf("%s(%s)", p.Kind, p.Address)
	default:
		if a, err := netip.ParseAddr(p.Address); port && err == nil && a.Is6() {
			s = "[" + s + "]"
		}
	}
	if port && p.Port != 0 {
		s += fmt.Sprintf(":%d", p.Port)
	}
	return s
}

// String writes the policy, its rule, file and commit.
func (p Policy) String() string {
	s := "policy "
	if p.Namespace != "" {
		s += p.Namespace + "/"
	}
	s += p.Kind + "/" + p.Name
	if p.Rule != "" {
		s += " (" + p.Rule + ")"
	}
	if p.Path != "" {
		s += "  " + p.Path
	}
	if p.Revision != "" {
		s += " @ " + p.Revision
	}
	return s
}
