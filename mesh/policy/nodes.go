// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
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

// named is what rules name and what is looked up elsewhere. A model that names any of it must be resolved before it is used.
type named struct {
	cluster  string
	node     string          // that judges
	nodes    map[string]Node // of the cluster
	services map[ServiceName]map[string]Service
}

// peers of all rules.
func (m *Model) peers() (out []peer) {
	for _, d := range m.dirs {
		if d == nil {
			continue
		}
		for i := range d.rules {
			out = append(out, d.rules[i].peers...)
		}
	}
	return out
}

func (m *Model) nodeSelectors() (out []nodeSelector) {
	for _, p := range m.peers() {
		if p.nodes != nil {
			out = append(out, *p.nodes)
		}
	}
	return out
}

// ofNodes are the chosen nodes: their addresses, and identity.Host for the subject's own node, which has others as well (a
// bridge's, loopback's) under which its pods reach it. May says that it may be meant: its labels are not known.
func (n *named) ofNodes(s *nodeSelector) (out []peer, may bool) {
	for _, prefix := range s.prefixes(n.nodes) {
		out = append(out, peer{cidr: prefix})
	}
	own, known := n.nodes[n.node]
	if known && s.matches(own) {
		out = append(out, peer{entity: identity.Host})
	}
	return out, n.node != "" && !known
}

// resolve puts what a model names in its names' place. It costs the model's size and, for each selector of nodes, the number of
// nodes. A model that names nothing is itself.
func (n *named) resolve(m *Model) *Model {
	if !slices.ContainsFunc(m.peers(), peer.isName) {
		return m
	}
	out := *m
	for dir, d := range m.dirs {
		if d == nil {
			continue
		}
		own := *d
		own.rules = make([]rule, 0, len(d.rules))
		for _, r := range d.rules {
			resolved, doubt := n.resolveRule(r)
			if last := len(own.rules) - 1; r.kind == RuleUnclear && last >= 0 && own.rules[last].kind == RuleUnclear && own.rules[last].index == r.index {
				resolved.peers = append(resolved.peers, own.rules[last].peers...) // one rule denies all who may be passed
				resolved.identify()
				own.rules = own.rules[:last]
			}
			own.rules = append(own.rules, resolved)
			if doubt && m.tier == TierAdmin { // as splitPasses does
				r.kind, r.peers = RuleUnclear, []peer{{entity: identity.Host}}
				r.identify()
				own.rules = append(own.rules, r)
			}
		}
		out.dirs[dir] = &own
	}
	return &out
}

// resolveRule puts what a rule names in its names' place. A denial is about the own node, too, if that may be meant; doubt says that
// it is a pass, of which nobody knows whether it means that node.
func (n *named) resolveRule(r rule) (out rule, doubt bool) {
	var peers []peer
	for _, p := range r.peers {
		if !p.isName() {
			peers = append(peers, p)
			continue
		}
		chosen, may := n.ofService(p.service)
		if p.nodes != nil {
			chosen, may = n.ofNodes(p.nodes)
		}
		peers = append(peers, chosen...)
		switch {
		case may && r.kind.denies():
			peers = append(peers, peer{entity: identity.Host})
		case may && r.kind == RulePass:
			doubt = true
		}
	}
	r.peers = peers
	r.identify()
	return r, doubt
}

// SetNode sets a node of the local cluster; nil removes it. The node must not change afterwards.
func (e *Engine) SetNode(name string, n *Node) { e.inputs.nodes[name] = n }

// nodeChange is a node before and after; nil: there was or is none.
type nodeChange struct {
	was, now *Node
	own      bool
}

// concerns says whether rules with a selector mean something else now.
func (c nodeChange) concerns(s nodeSelector) bool {
	was, now := c.was != nil && s.matches(*c.was), c.now != nil && s.matches(*c.now)
	if c.own && (c.was == nil) != (c.now == nil) {
		return true // while its labels are not known, it may be meant
	}
	return was != now || was && !slices.Equal(c.was.Addresses, c.now.Addresses)
}

// movesOwn says whether the own node is known now and was not, or the reverse, or has other addresses.
func (c nodeChange) movesOwn() bool {
	if c.was == nil || c.now == nil {
		return c.own && c.was != c.now
	}
	return c.own && !slices.Equal(c.was.Addresses, c.now.Addresses)
}

// applyNodes takes over nodes, and has the policies installed anew for which a change matters.
func (e *Engine) applyNodes() {
	var changes []nodeChange
	for _, name := range sortedKeys(e.inputs.nodes) {
		c := nodeChange{now: e.inputs.nodes[name], own: name == e.names.node}
		if was, known := e.names.nodes[name]; known {
			c.was = &was
		}
		delete(e.names.nodes, name)
		if c.now != nil {
			e.names.nodes[name] = *c.now
		}
		changes = append(changes, c)
	}
	if len(changes) == 0 {
		return
	}
	if slices.ContainsFunc(changes, nodeChange.movesOwn) { // services that it serves mean it
		for _, all := range e.policies.onServices {
			for p := range all {
				e.outdate(p)
			}
		}
	}
	for p := range e.policies.onNodes {
		concerned := slices.ContainsFunc(p.source.nodeSelectors(), func(s nodeSelector) bool {
			return slices.ContainsFunc(changes, func(c nodeChange) bool { return c.concerns(s) })
		})
		if concerned {
			e.outdate(p)
		}
	}
}
