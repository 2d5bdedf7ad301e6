// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// set is a peer set that lines refer to: all peers of a rule together, so that a rule needs a line for each of its ports and
// no more. A set for each single peer would be shared by more rules, but long lists are usual: 60 policies of five rules,
// one of them with 5-25 CIDRs and one with three kinds of pods, make 174 sets and 420 lines this way, and 1,011 sets and
// 1,550 lines the other. Most rules have one peer, where it makes no difference.
//
// While a subject refers to a set, its bit of an identity that the kernel knows never changes. Where a change of a cluster's
// labels, of named ports or of an identity's labels moves known identities in or out, the set gets another bit with the
// members as they are now, and the lines that refer to it become other groups: all these peers change sides in one switch.
// That costs a row for each class and group concerned, and the set's size in time, for changes that are rare.
type set struct {
	key       string
	peers     []peer // of any kind
	orUnknown bool
	family    *family // instead of peers: those of them that call number by the family's name
	number    uint16

	owners []string // namespaces of the policies that asked for it, ascending; empty: cluster-scoped ones
	owner  string   // the one that is charged for the bit
	bit    uint16   // 0: none yet, or none left
	// refused is how many classes had been freed when there was no room for it; asked for again only after others were.
	refused uint64
	stale   bool // known members differ from those that the bit has
	users   map[*profile]struct{}
}

func (s *set) namesCIDRs() bool {
	return slices.ContainsFunc(s.peers, func(p peer) bool { return p.isCIDR() })
}

func (s *set) hash() uint64 {
	h := fnv.New64a()
	h.Write([]byte(s.key))
	return h.Sum64() | 1 // 0 is a free bit
}

// peersKey identifies a list of peers: equal keys have equal members.
func peersKey(peers []peer, orUnknown bool) string {
	keys := make([]string, len(peers))
	for i, p := range peers {
		keys[i] = p.key(orUnknown)
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), "\x01")
}

func (p *peer) key(orUnknown bool) string {
	if p.pods != nil {
		return p.pods.key(orUnknown)
	}
	if p.entity == otherNodes {
		return "entity\x00other nodes"
	}
	if p.entity != 0 {
		return "entity\x00" + identity.Name(p.entity)
	}
	if p.nodes != nil { // of a model that isn't resolved yet
		return "nodes\x00" + p.nodes.String()
	}
	if p.isName() {
		return "service\x00" + p.service.String()
	}
	except := slices.Clone(p.except)
	slices.SortFunc(except, comparePrefixes)
	return "cidr\x00" + p.cidr.String() + "\x00" + joinPrefixes(slices.Compact(except))
}

// key identifies a selector.
func (s *podSelector) key(orUnknown bool) string {
	scope := "all"
	switch {
	case s.local:
		scope = "local"
	case s.clusters != nil && orUnknown:
		scope = "known " + s.clusters.text
	case s.clusters != nil:
		scope = "some " + s.clusters.text
	}
	return scope + "\x00" + s.namespace + "\x00" + s.namespaces.String() + "\x00" + s.pods.String() + accountsKey(s.accounts)
}

// accountsKey is empty for all of them, so that sets without any are named as before.
func accountsKey(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "\x00as " + strings.Join(names, ",")
}

// terms finds the sets of an identity without a look at every set: each of a set's peers is filed under what an identity
// must have to be meant by it.
type terms struct {
	byLabel     map[label][]term
	byNamespace map[string][]term
	others      []term
	byCIDR      map[netip.Prefix][]term
	byEntity    map[uint32][]term
	byPort      map[string][]term // sets of families, by the port's name
}

type label struct{ key, value string }

type term struct {
	set  *set
	peer *peer // nil for sets of families
}

func newTerms() *terms {
	return &terms{byLabel: map[label][]term{}, byNamespace: map[string][]term{}, byCIDR: map[netip.Prefix][]term{}, byEntity: map[uint32][]term{}, byPort: map[string][]term{}}
}

func (t *terms) add(s *set) {
	t.each(s, func(list []term, n term) []term { return append(list, n) })
}

func (t *terms) remove(s *set) {
	t.each(s, func(list []term, n term) []term {
		at := slices.Index(list, n)
		return slices.Delete(list, at, at+1)
	})
}

// each changes the lists that a set's terms belong to.
func (t *terms) each(s *set, change func([]term, term) []term) {
	if s.family != nil {
		file(t.byPort, s.family.name, term{set: s}, change)
		return
	}
	for i := range s.peers {
		n := term{s, &s.peers[i]}
		pods := n.peer.pods
		switch {
		case n.peer.entity != 0:
			file(t.byEntity, n.peer.entity, n, change)
		case pods == nil:
			file(t.byCIDR, n.peer.cidr, n, change)
		case pods.pods != nil && pods.pods.key != "":
			file(t.byLabel, label{pods.pods.key, pods.pods.value}, n, change)
		case pods.namespace != "":
			file(t.byNamespace, pods.namespace, n, change)
		default:
			t.others = change(t.others, n)
		}
	}
}

func file[K comparable](lists map[K][]term, key K, n term, change func([]term, term) []term) {
	if list := change(lists[key], n); len(list) > 0 {
		lists[key] = list
	} else {
		delete(lists, key)
	}
}

// ofPod adds the sets that a pod's identity is in because of its labels.
func (t *terms) ofPod(c *clusters, l labels.Set, namespace string, out *Bitmap) {
	try := func(list []term) {
		for _, n := range list {
			if !out.Has(n.set.bit) && c.selects(n.peer.pods, l, n.set.orUnknown) {
				out.add(n.set.bit)
			}
		}
	}
	for k, v := range l {
		if list := t.byLabel[label{k, v}]; list != nil {
			try(list)
		}
	}
	try(t.byNamespace[namespace])
	try(t.others)
}

// ofPorts adds the sets that an identity is in because of its named ports.
func (t *terms) ofPorts(id uint32, named map[string][]uint16, out *Bitmap) {
	for name := range named {
		for _, n := range t.byPort[name] {
			if slices.Contains(n.set.family.members[id], n.set.number) {
				out.add(n.set.bit)
			}
		}
	}
}

// ofEntity adds the sets that the world's or nodes' identity is in.
func (t *terms) ofEntity(id uint32, out *Bitmap) {
	for _, n := range t.byEntity[id] {
		out.add(n.set.bit)
	}
	for _, n := range t.byEntity[also[id]] {
		out.add(n.set.bit)
	}
}

// also is what an entity counts as besides: the own node is one of all nodes, and others are other ones.
var also = map[uint32]uint32{identity.Host: identity.RemoteNode, identity.RemoteNode: otherNodes}

// ofCIDR adds the sets that a CIDR's identity is in.
func (t *terms) ofCIDR(p netip.Prefix, out *Bitmap) {
	for bits := p.Bits(); bits >= 0; bits-- {
		for _, n := range t.byCIDR[netip.PrefixFrom(p.Addr(), bits).Masked()] {
			if !slices.ContainsFunc(n.peer.except, func(e netip.Prefix) bool { return covers(e, p) }) {
				out.add(n.set.bit)
			}
		}
	}
}
