// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"net/netip"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Completeness says what the tables hold everything of, so that what the kernel holds beyond them is not wanted any more.
// Clusters are judged one by one: one that is dark, declared ahead or refused keeps only its own rows in the kernel. It is a
// value of one moment and never changes; the zero value says that nothing is complete.
//
// What a row of the kernel needs to be complete before it may go, though no table wants it:
//
//   - A row made from policies or services of this cluster alone: Own, with their kinds.
//   - An identity: what Identity says by the cluster that the number belongs to.
//   - An address: what Address says by the clusters that have it in their pod ranges.
//   - A range of addresses: what Range says.
//   - Anything else that another cluster may have caused: All, with the kinds it is made from.
//
// No kinds mean every kind.
type Completeness struct {
	local   string
	members map[string]*member
	byID    map[uint8][]*member
	ranges  map[netip.Prefix][]*member
	lengths map[int]bool // of ranges, IPv6 ones with ipv6Length added
}

// member is a cluster that the relay names, or that there is a record of.
type member struct {
	complete map[string]bool // by kind
	unheard  bool
}

const ipv6Length = 1000

// Member is what Completeness is made from: a cluster as the relay and the tables know it.
type Member struct {
	Name     string
	Local    bool
	Complete func(kind string) bool // what the relay says; nil: nothing
	Record   *record.Cluster        // nil: none
	// Unheard says that nothing of it can be in the kernel, because there is no record of it and was none when this agent
	// started from its disk: a cluster that was declared ahead, or refused all along.
	Unheard bool
}

// NewCompleteness judges clusters. Every cluster must be among them that the relay names or a record is of.
func NewCompleteness(members []Member) *Completeness {
	c := &Completeness{
		members: make(map[string]*member, len(members)), byID: map[uint8][]*member{},
		ranges: map[netip.Prefix][]*member{}, lengths: map[int]bool{},
	}
	for _, in := range members {
		m := &member{complete: map[string]bool{}, unheard: in.Unheard}
		for _, kind := range record.Kinds() {
			m.complete[kind] = in.Complete != nil && in.Complete(kind)
		}
		c.members[in.Name] = m
		if in.Local {
			c.local = in.Name
		}
		if in.Record == nil {
			continue
		}
		c.byID[in.Record.ID] = append(c.byID[in.Record.ID], m)
		for _, p := range in.Record.PodCIDRs {
			c.ranges[p.Masked()] = append(c.ranges[p.Masked()], m)
			c.lengths[length(p)] = true
		}
	}
	return c
}

func length(p netip.Prefix) int {
	if p.Addr().Is4() {
		return p.Bits()
	}
	return p.Bits() + ipv6Length
}

// Own says that this node's own cluster is known, and complete for all of these kinds.
func (c *Completeness) Own(kinds ...string) bool {
	return c.local != "" && c.Cluster(c.local, kinds...)
}

// Cluster says that one cluster is complete for all of these kinds. A cluster that nobody names is not.
func (c *Completeness) Cluster(name string, kinds ...string) bool {
	m := c.members[name]
	return m != nil && m.has(kinds)
}

// All says that this node's own cluster is known, and every cluster complete for all of these kinds, apart from clusters that
// were never heard of.
func (c *Completeness) All(kinds ...string) bool {
	if !c.Own(kinds...) {
		return false
	}
	for _, m := range c.members {
		if !m.unheard && !m.has(kinds) {
			return false
		}
	}
	return true
}

// Identity says whether an identity that no table wants is none. The number of a pod's identity names its cluster. If no
// cluster with this number is known, it might be one that is not heard of yet, so everybody's cluster record is needed.
// A number that this node gave to a CIDR, and a reserved one, comes from policies.
func (c *Completeness) Identity(id uint32) bool {
	if identity.IsCIDR(id) || identity.IsReserved(id) {
		return c.Own(record.KindPolicy)
	}
	return c.owned(c.byID[identity.ClusterOf(id)], record.KindIdentity)
}

// Address says whether an address that no table wants belongs to nobody. It is a pod's if it lies within a cluster's pod
// ranges, and then takes that cluster's nodes and endpoints; nobody else can have it, because node addresses within pod
// ranges are refused. Otherwise it was a node's, of any cluster, or a pod's of a cluster that is not known (any more); so it
// takes all.
func (c *Completeness) Address(a netip.Addr) bool {
	return c.owned(c.owners(a), record.KindCluster, record.KindNode, record.KindEndpoint)
}

// Range says whether a range of addresses that no table wants is nobody's. Ranges come from cluster records and from this
// cluster's policies. A range of a cluster's pods, or within one, takes that cluster's record, any other everybody's.
func (c *Completeness) Range(p netip.Prefix) bool {
	var owners []*member
	for own, members := range c.ranges {
		if own.Overlaps(p) {
			owners = append(owners, members...)
		}
	}
	return c.Own(record.KindPolicy) && c.owned(owners, record.KindCluster)
}

// Peer says whether a WireGuard peer that no table wants, by its AllowedIPs, is nobody's. Those within a cluster's pod ranges
// name its cluster; a peer without such takes everybody's nodes.
func (c *Completeness) Peer(allowed []netip.Prefix) bool {
	var owners []*member
	for _, p := range allowed {
		owners = append(owners, c.owners(p.Addr())...)
	}
	return c.owned(owners, record.KindCluster, record.KindNode)
}

// owned asks the owners, or everybody if there are none.
func (c *Completeness) owned(owners []*member, kinds ...string) bool {
	if c.local == "" {
		return false
	}
	if len(owners) == 0 {
		return c.All(kinds...)
	}
	for _, m := range owners {
		if !m.has(kinds) {
			return false
		}
	}
	return true
}

func (c *Completeness) owners(a netip.Addr) []*member {
	var out []*member
	for bits := range c.lengths {
		if (bits >= ipv6Length) == a.Is4() {
			continue
		}
		if p, err := a.Prefix(bits % ipv6Length); err == nil {
			out = append(out, c.ranges[p]...)
		}
	}
	return out
}

func (m *member) has(kinds []string) bool {
	if len(kinds) == 0 {
		kinds = record.Kinds()
	}
	for _, kind := range kinds {
		if !m.complete[kind] {
			return false
		}
	}
	return true
}
