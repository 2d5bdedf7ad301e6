// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"net/netip"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/flow"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// keepRules is how long a rule that is gone can still be named: an event of its last moment may lie in the ring buffer,
// and a running flow bears it until its next packet.
const keepRules = 10 * time.Minute

// Namer turns numbers into names.
type Namer struct {
	tables  *table.Tables
	node    string
	cluster func() string

	changes *table.Changes[uint32, table.Rule]
	rules   map[uint32]table.Rule
	gone    map[uint32]time.Time
}

// NewNamer makes a namer for a node.
func NewNamer(t *table.Tables, node string, cluster func() string) *Namer {
	return &Namer{
		tables: t, node: node, cluster: cluster, changes: t.Rules.Changes(),
		rules: map[uint32]table.Rule{}, gone: map[uint32]time.Time{},
	}
}

// learn takes in what rules there are, and forgets those that are long gone.
func (n *Namer) learn(now time.Time) {
	changes, _ := n.changes.Next()
	for _, c := range changes {
		if c.Deleted {
			n.gone[c.Key] = now
			continue
		}
		delete(n.gone, c.Key)
		n.rules[c.Key] = c.Value
	}
	for id, since := range n.gone {
		if now.Sub(since) > keepRules {
			delete(n.gone, id)
			delete(n.rules, id)
		}
	}
}

// Name gives an event's flow.
func (n *Namer) name(at time.Time, e bpf.Event) flow.Flow {
	f := flow.Flow{
		Time: at, Node: n.node, Cluster: n.cluster(),
		Verdict: verdict(e), Reason: e.Reason.String(), Hook: e.Hook.String(),
		Encrypted:   e.Flags&bpf.EventViaTunnel != 0,
		Reevaluated: e.Flags&bpf.EventReevaluated != 0,
		Packets:     e.Count, Bytes: e.Bytes,
	}
	if e.Dir != bpf.DirNone {
		f.Direction = e.Dir.String()
	}
	f.Source = n.peer(e.Family, e.Saddr, e.Sport, e.SrcIdentity)
	f.Destination = n.peer(e.Family, e.Daddr, e.Dport, e.DstIdentity)
	if e.Family != 0 {
		f.Protocol = table.ProtocolName(e.Proto)
		if e.Proto == protoTCP {
			f.TCPFlags = tcpFlags(e.TCPFlags)
		}
		if icmp.Is(e.Proto) {
			f.Destination.Port = 0
			if _, known := icmp.Type(e.Dport); known {
				f.ICMPType = icmp.PortName(e.Proto, e.Dport)
			}
		}
	}
	if rule, ok := n.rules[e.RuleID]; ok && e.RuleID != 0 {
		f.Policy = &flow.Policy{
			Kind: rule.Kind, Namespace: rule.Namespace, Name: rule.Name, Rule: rule.Description,
			Source: rule.Source, URL: rule.URL, Revision: rule.Revision, Path: rule.Path,
		}
	}
	return f
}

func verdict(e bpf.Event) flow.Verdict {
	switch {
	case e.Reason == bpf.ReasonPolicyDenied || e.Reason == bpf.ReasonDefaultDenied:
		return flow.Denied
	case e.Reason.IsDrop():
		return flow.Dropped
	case e.Verdict == bpf.VerdictAuditDeny || e.Reason == bpf.ReasonAudited:
		return flow.Audited
	}
	return flow.Allowed
}

const protoTCP = 6

func (n *Namer) peer(family uint8, raw [16]uint8, port uint16, id uint32) flow.Peer {
	p := flow.Peer{Identity: id, Port: port}
	addr, ok := address(family, raw)
	if !ok {
		return p
	}
	p.Address = addr.String()
	// Of several records with one address (a pod that just ended and its successor) the one with the identity that the
	// packet was judged by is meant.
	if at := n.tables.EndpointsAt(addr); len(at) > 0 {
		e := at[max(0, slices.IndexFunc(at, func(e table.LocatedEndpoint) bool { return e.Identity == id }))]
		p.Cluster, p.Namespace, p.Pod = e.Cluster, e.Namespace, e.Name
	}
	if p.Pod == "" {
		p.Kind = kind(id)
	}
	return p
}

// kind says what an identity stands for that is no pod's we know.
func kind(id uint32) string {
	if identity.IsReserved(id) {
		return identity.Name(id)
	}
	if identity.IsCIDR(id) {
		return "cidr"
	}
	return ""
}

func address(family uint8, raw [16]uint8) (netip.Addr, bool) {
	switch family {
	case 2: // AF_INET
		return netip.AddrFrom4([4]byte(raw[:4])), true
	case 10: // AF_INET6
		return netip.AddrFrom16(raw), true
	}
	return netip.Addr{}, false
}

func tcpFlags(flags uint8) string {
	names := [...]string{"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
	s := ""
	for i, name := range names {
		if flags&(1<<i) == 0 {
			continue
		}
		if s != "" {
			s += ","
		}
		s += name
	}
	return s
}
