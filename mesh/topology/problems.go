// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package topology

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/btree"
)

// maxProblems is how many problems are listed one by one.
const maxProblems = 100

// problemKind orders problems: what concerns most comes first.
type problemKind uint8

const (
	problemNoSelf problemKind = iota
	problemEncryptionOff
	problemPodRange
	problemServiceRange
	problemNodeRange
	problemNodeClaim
	problemNoAddress
	problemNoPort
	problemSameKey
	problemOwnAddress
	problemTaken
	// Problems that many records can share are counted.
	problemNodesLeftOut
	problemEndpointsLeftOut
	problemEndpointsOutside
	problemNoIndex
)

// problem is one thing that an administrator should read. It is a value, so that it can be taken back.
type problem struct {
	kind   problemKind
	about  string // the cluster, node or pod that has it
	other  string
	prefix netip.Prefix
}

func (p problem) compare(q problem) int {
	return cmp.Or(cmp.Compare(p.kind, q.kind), cmp.Compare(p.about, q.about), p.prefix.Compare(q.prefix), cmp.Compare(p.other, q.other))
}

func (p problem) String() string {
	switch p.kind {
	case problemNoSelf:
		return fmt.Sprintf("this node (%s) has no record: its own addresses are unknown", p.about)
	case problemEncryptionOff:
		return "encryption is off: other clusters can't be reached, because this version carries packets between clusters only through WireGuard"
	case problemPodRange, problemServiceRange:
		what := "pod"
		if p.kind == problemServiceRange {
			what = "service"
		}
		return fmt.Sprintf("cluster %s: %s CIDR %s overlaps with the %s, which keep it; give one of them another range", p.about, what, p.prefix, p.other)
	case problemNodeRange:
		return fmt.Sprintf("node %s: pod CIDR %s is not within the pod CIDRs of cluster %s; it is not used", p.about, p.prefix, p.other)
	case problemNodeClaim:
		return fmt.Sprintf("nodes %s and %s both claim %s; %s keeps it", p.other, p.about, p.prefix, p.other)
	case problemNoAddress:
		return fmt.Sprintf("node %s is not reachable: it has no address", p.about)
	case problemNoPort:
		return fmt.Sprintf("node %s is not reachable: its WireGuard port is not set", p.about)
	case problemSameKey:
		return fmt.Sprintf("node %s is not reachable: node %s has the same WireGuard public key", p.about, p.other)
	case problemOwnAddress:
		return fmt.Sprintf("%s claims %s, an address of this node; it is ignored", p.about, p.prefix.Addr())
	case problemTaken:
		return fmt.Sprintf("%s claims %s, which somebody else has; it is ignored", p.about, p.prefix.Addr())
	case problemNodesLeftOut:
		return fmt.Sprintf("nodes of cluster %s are left out: its cluster record is missing or has no valid id", p.about)
	case problemEndpointsLeftOut:
		return fmt.Sprintf("endpoints of cluster %s are left out: its cluster record is missing or has no valid id", p.about)
	case problemEndpointsOutside:
		return fmt.Sprintf("cluster %s: endpoints outside of its pod CIDRs are left out", p.about)
	case problemNoIndex:
		return "nodes without a peer: more than 65535 nodes have a key"
	}
	return fmt.Sprintf("problem %d of %s", p.kind, p.about)
}

// problems collects what an administrator should read, without a line for each of a hundred thousand records that share
// one mistake: the first lines are listed, the others counted. It is ordered, so that the list is the same whatever the
// order of events was, and costs what it shows.
type problems struct {
	lines  *btree.BTreeG[problem]
	again  map[problem]int // how often lines were added beyond the first time
	counts map[problem]int
}

func newProblems() *problems {
	return &problems{
		lines:  btree.NewG(8, func(a, b problem) bool { return a.compare(b) < 0 }),
		again:  map[problem]int{},
		counts: map[problem]int{},
	}
}

// add adds a line. A problem that has two causes is added twice, listed once, and goes when it was removed twice.
func (p *problems) add(line problem) {
	if _, there := p.lines.ReplaceOrInsert(line); there {
		p.again[line]++
	}
}

func (p *problems) remove(line problem) {
	switch n := p.again[line]; {
	case n > 1:
		p.again[line] = n - 1
	case n == 1:
		delete(p.again, line)
	default:
		p.lines.Delete(line)
	}
}

// set adds or removes a line that has one cause.
func (p *problems) set(line problem, there bool) {
	if there {
		p.lines.ReplaceOrInsert(line)
	} else {
		p.lines.Delete(line)
	}
}

// count adds n, which may be negative, to how often a problem exists that many records can share.
func (p *problems) count(kind problemKind, cluster string, n int) {
	key := problem{kind: kind, about: cluster}
	if p.counts[key] += n; p.counts[key] == 0 {
		delete(p.counts, key)
	}
}

func (p *problems) list() []string {
	var out []string
	p.lines.Ascend(func(line problem) bool {
		out = append(out, line.String())
		return len(out) < maxProblems
	})
	groups := make([]problem, 0, len(p.counts))
	for key := range p.counts {
		groups = append(groups, key)
	}
	slices.SortFunc(groups, problem.compare)
	for _, key := range groups {
		out = append(out, fmt.Sprintf("%s (%d)", key, p.counts[key]))
	}
	if more := p.lines.Len() - maxProblems; more > 0 {
		out = append(out, fmt.Sprintf("and %d more problems like these", more))
	}
	return out
}

func nodeTitle(key string) string { return "node " + key }

func podTitle(cluster, namespace, name string) string {
	return "pod " + cluster + "/" + namespace + "/" + name
}
