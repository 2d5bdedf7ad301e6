// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// Node is a node of the local cluster, as far as policies name nodes: rules mean the addresses of those that a selector chooses.
type Node struct {
	Labels    map[string]string
	Addresses []netip.Addr
}

func (n Node) equal(other Node) bool {
	return maps.Equal(n.Labels, other.Labels) && slices.Equal(n.Addresses, other.Addresses)
}

// nobody has this address. A rule about nodes of which there are none is about it: it means no node, and is still one about
// some peers, which a peer that nobody knows could be.
var nobody = netip.PrefixFrom(netip.IPv4Unspecified(), 32)

// nodeSelector chooses nodes of the local cluster by their labels; nil chooses all.
type nodeSelector struct{ *selector }

func (s nodeSelector) matches(n Node) bool { return s.selector.matches(labels.Set(n.Labels)) }

func (s nodeSelector) String() string {
	if s.selector == nil {
		return "all nodes"
	}
	return "nodes " + s.text
}

// prefixes of the chosen nodes' addresses, each once.
func (s nodeSelector) prefixes(nodes map[string]Node) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range nodes {
		if !s.matches(n) {
			continue
		}
		for _, a := range n.Addresses {
			out = append(out, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		}
	}
	if len(out) == 0 {
		return []netip.Prefix{nobody}
	}
	slices.SortFunc(out, comparePrefixes)
	return slices.Compact(out)
}

// namesNodes says whether a rule is about nodes, so that the model must be resolved before it is used.
func (m *Model) namesNodes() bool {
	return slices.ContainsFunc(m.nodeSelectors(), func(nodeSelector) bool { return true })
}

func (m *Model) nodeSelectors() []nodeSelector {
	var out []nodeSelector
	for _, d := range m.dirs {
		if d == nil {
			continue
		}
		for i := range d.rules {
			for _, p := range d.rules[i].peers {
				if p.nodes != nil {
					out = append(out, *p.nodes)
				}
			}
		}
	}
	return out
}

// peers are the chosen nodes: their addresses, and identity.Host for the subject's own node, which has others as well (a
// bridge's, loopback's) under which its pods reach it.
func (s nodeSelector) peers(nodes map[string]Node, own string) []peer {
	var out []peer
	for _, prefix := range s.prefixes(nodes) {
		out = append(out, peer{cidr: prefix})
	}
	if n, known := nodes[own]; known && s.matches(n) {
		out = append(out, peer{entity: identity.Host})
	}
	return out
}

// resolved is the model with the nodes that it names in their selectors' place; node is the one that judges. It costs the
// model's size and, for each selector of nodes, the number of nodes. A model that names none is itself.
func (m *Model) resolved(nodes map[string]Node, node string) *Model {
	if !m.namesNodes() {
		return m
	}
	out := *m
	for dir, d := range m.dirs {
		if d == nil {
			continue
		}
		own := *d
		own.rules = slices.Clone(d.rules)
		for i := range own.rules {
			r := &own.rules[i]
			var peers []peer
			for _, p := range r.peers {
				if p.nodes == nil {
					peers = append(peers, p)
					continue
				}
				peers = append(peers, p.nodes.peers(nodes, node)...)
			}
			r.peers = peers
			r.identify()
		}
		out.dirs[dir] = &own
	}
	return &out
}

// SetNode sets a node of the local cluster; nil removes it. The node must not change afterwards.
func (e *Engine) SetNode(name string, n *Node) { e.inputs.nodes[name] = n }

// applyNodes takes over nodes, and has the policies that name any of those that changed installed anew.
func (e *Engine) applyNodes() {
	var changed []Node
	for _, name := range sortedKeys(e.inputs.nodes) {
		now := e.inputs.nodes[name]
		was, known := e.nodes[name]
		if known == (now != nil) && (now == nil || now.equal(was)) {
			continue
		}
		if known {
			changed = append(changed, was)
		}
		delete(e.nodes, name)
		if now != nil {
			e.nodes[name] = *now
			changed = append(changed, *now)
		}
	}
	for p := range e.policies.onNodes {
		concerned := slices.ContainsFunc(p.source.nodeSelectors(), func(s nodeSelector) bool { return slices.ContainsFunc(changed, s.matches) })
		if _, set := e.inputs.policies[p.source.key]; concerned && !set {
			e.inputs.policies[p.source.key] = p.source
			p.outdated = true
		}
	}
}
