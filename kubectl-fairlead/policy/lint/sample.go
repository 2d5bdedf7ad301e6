// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package lint

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// sample is a made-up mesh in which everything that rules of one direction could tell apart happens once.
type sample struct {
	world    *policy.World
	subjects []uint32
	peers    []policy.Connection // of which Peer and Addr count
	ports    []policy.Connection // of which Proto and Port count
	names    []string            // of ports, that rules use
}

// labelNamespaceName is what the API server puts on each namespace.
const labelNamespaceName = "kubernetes.io/metadata.name"

// maker makes a sample, unless why says that it can't.
type maker struct {
	sample
	cluster   *world.Cluster
	homes     []string // namespaces of policies
	why       string
	next      uint16
	remote    map[string]uint8
	numbers   map[string]uint32
	clusterID uint8
}

// makeSample from the words of policies: of whom they select, and of their rules in one direction. homes are their namespaces. If
// no sample is sure to tell everything apart, why says so.
func makeSample(c *world.Cluster, subjects, rules *words, homes []string) (s sample, why string) {
	m := &maker{cluster: c, homes: homes, next: identity.FirstLocal, remote: map[string]uint8{}, numbers: map[string]uint32{}, clusterID: max(c.ID, 1)}
	m.world = &policy.World{Cluster: c.Name, Clusters: map[string]map[string]string{c.Name: {}}, Identities: map[uint32]map[string]string{}}
	maps.Copy(m.world.Clusters[c.Name], c.Labels)
	m.check(subjects)
	m.check(rules)
	m.makePorts(rules)
	pods := m.sets(subjects.pods)
	for _, ns := range m.namespaces(subjects) {
		for _, l := range pods {
			m.subjects = append(m.subjects, m.pod(c.Name, ns, l))
		}
	}
	m.makePeers(rules)
	return m.sample, m.why
}

func (m *maker) fail(why string) {
	if m.why == "" {
		m.why = why
	}
}

const tooMany = "its selectors and those of other policies would need too many pods to tell apart"

// check finds what a sample would not be sure of.
func (m *maker) check(w *words) {
	if w.unsampled != "" {
		m.fail("it or another policy names " + w.unsampled)
	}
	for _, s := range w.pods {
		for key := range requirements(s) {
			if key == identity.LabelCluster || key == identity.LabelNamespace || strings.HasPrefix(key, identity.LabelNamespacePrefix) {
				m.fail("a podSelector asks for " + key + ", which depends on the pod's place")
			}
		}
	}
	for _, s := range w.clusters {
		for key := range requirements(s) {
			if key != identity.LabelCluster && m.cluster.Labels == nil && !m.cluster.Live() {
				m.fail("a clusterSelector asks for " + key + ", and the labels of cluster " + m.cluster.Name + " are not described")
			}
		}
	}
}

// protoGRE stands for all protocols without ports.
const protoGRE = 47

func (m *maker) makePorts(rules *words) {
	for _, proto := range []uint8{6, 17, 132} {
		for _, p := range portEdges(rules.ports) {
			m.ports = append(m.ports, policy.Connection{Proto: proto, Port: p})
		}
	}
	m.ports = append(m.ports, policy.Connection{Proto: protoGRE})
	for _, proto := range []uint8{icmp.V4, icmp.V6} {
		named := map[uint16]bool{}
		for _, c := range rules.messages {
			if c.Proto == proto && !named[c.Port] {
				named[c.Port] = true
				m.ports = append(m.ports, c)
			}
		}
		other := icmp.Port(255) // that no rule names
		for named[other] {
			other--
		}
		m.ports = append(m.ports, policy.Connection{Proto: proto, Port: other})
	}
	m.names = slices.Clone(rules.names)
	slices.Sort(m.names)
	if m.names = slices.Compact(m.names); len(m.names) > mostNames {
		m.fail(fmt.Sprintf("it and other policies use more than %d names of ports", mostNames))
		m.names = nil
	}
}

func (m *maker) makePeers(rules *words) {
	addresses, pods, clusters := edges(rules.cidrs), m.sets(rules.pods), m.clusters(rules)
	for _, ns := range m.namespaces(rules) {
		for _, l := range pods {
			for _, cluster := range clusters {
				id := m.pod(cluster, ns, l)
				for _, a := range addresses { // CIDRs mean pods, too
					if peer := (policy.Connection{Peer: id, Addr: a}); len(m.peers) < most*most {
						m.peers = append(m.peers, peer)
					} else {
						m.fail(tooMany)
					}
				}
			}
		}
	}
	for _, a := range addresses {
		m.peers = append(m.peers, policy.Connection{Peer: identity.World, Addr: a}, policy.Connection{Peer: identity.RemoteNode, Addr: a}, policy.Connection{Peer: identity.Host, Addr: a})
	}
	m.peers = append(m.peers, policy.Connection{Peer: identity.Unknown, Addr: netip.MustParseAddr("203.0.113.78")})
}

// namespace as its pods' identities have it.
type namespace struct {
	name   string
	labels map[string]string
}

func (m *maker) sets(selectors []metav1.LabelSelector) []map[string]string {
	sets, ok := labelSets(selectors)
	if !ok {
		m.fail(tooMany)
	}
	return sets
}

// namespaces are the homes and others. A home that isn't described may have any labels.
func (m *maker) namespaces(w *words) []namespace {
	sets := m.sets(w.namespaces)
	var out []namespace
	for _, name := range m.homes {
		labels, known := m.cluster.Namespaces[name]
		if known {
			out = append(out, namespace{name, labels})
			continue
		}
		for _, set := range sets {
			out = append(out, namespace{name, set})
		}
	}
	for i, set := range sets {
		name := fmt.Sprintf("%s-%d", fresh, i)
		if value := set[labelNamespaceName]; value != "" {
			name = value
		}
		out = append(out, namespace{name, set})
	}
	return out
}

func (m *maker) clusters(w *words) []string {
	out := []string{m.cluster.Name}
	for i, set := range m.sets(w.clusters) {
		name := fmt.Sprintf("%s-%d", fresh, i)
		if value := set[identity.LabelCluster]; value != "" {
			name = value
		}
		if _, has := m.world.Clusters[name]; !has {
			m.world.Clusters[name] = set
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// pod makes one and gives its identity.
func (m *maker) pod(cluster string, ns namespace, own map[string]string) uint32 {
	l := identity.PodLabels(cluster, ns.name, "", nil, ns.labels)
	maps.Copy(l, own)
	key := identity.Canonical(l)
	if id, has := m.numbers[key]; has {
		return id
	}
	number := m.clusterID
	if cluster != m.cluster.Name {
		if m.remote[cluster] == 0 {
			m.remote[cluster] = uint8(len(m.remote))%200 + 1
			if m.remote[cluster] >= m.clusterID {
				m.remote[cluster]++
			}
		}
		number = m.remote[cluster]
	}
	id := identity.Of(number, m.next)
	m.next++
	if len(m.numbers) > most*16 {
		m.fail(tooMany)
	}
	m.numbers[key] = id
	m.world.Identities[id] = l
	return id
}

// matching finds the connections that a rule matches by itself: pairs of pods, and the ports that any of them has a match on. For
// all subjects these are the same: the rule's policy selects each of them.
func (s *sample) matching(solo *policy.Reference, r policy.Rule) (pairs, ports []policy.Connection) {
	try := func(subject uint32, peer, port policy.Connection) bool {
		_, is := matching(solo.Explain(join(pair(subject, peer, r.Direction), port)), r)
		return is
	}
	if len(s.subjects) == 0 {
		return nil, nil
	}
	for _, port := range s.ports {
		if slices.ContainsFunc(s.peers, func(peer policy.Connection) bool { return try(s.subjects[0], peer, port) }) {
			ports = append(ports, port)
		}
	}
	for _, peer := range s.peers {
		if slices.ContainsFunc(ports, func(port policy.Connection) bool { return try(s.subjects[0], peer, port) }) {
			for _, subject := range s.subjects {
				pairs = append(pairs, pair(subject, peer, r.Direction))
			}
		}
	}
	return pairs, ports
}

// matchesAny says whether a rule matches any connection. One subject is enough, see matching.
func (s *sample) matchesAny(solo *policy.Reference, r policy.Rule) bool {
	for _, subject := range s.subjects[:min(len(s.subjects), 1)] {
		for _, peer := range s.peers {
			for _, port := range s.ports {
				if _, is := matching(solo.Explain(join(pair(subject, peer, r.Direction), port)), r); is {
					return true
				}
			}
		}
	}
	return false
}

func pair(subject uint32, peer policy.Connection, dir policy.Direction) policy.Connection {
	return policy.Connection{Subject: subject, Peer: peer.Peer, Addr: peer.Addr, Dir: dir}
}

func join(pair, port policy.Connection) policy.Connection {
	pair.Proto, pair.Port = port.Proto, port.Port
	return pair
}

// keep leaves only subjects that a policy selects.
func (s *sample) keep(m *policy.Model) {
	s.subjects = slices.DeleteFunc(s.subjects, func(id uint32) bool {
		alone := *s.world
		alone.Identities = map[uint32]map[string]string{id: s.world.Identities[id]}
		alone.Policies = []*policy.Model{m}
		return policy.NewReference(&alone).PolicySubjects[m.Key()] == 0
	})
}

// reference over the sample for some policies, where every pod calls every port by these names. For a connection it matters
// only which names its port has, so all that names can do is tried by trying sets of names.
func (s *sample) reference(models []*policy.Model, names []string) *policy.Reference {
	w := *s.world
	w.Policies = models
	w.NamedPorts = map[uint32]map[string][]uint16{}
	all := map[string][]uint16{}
	for _, name := range names {
		for _, port := range s.ports {
			if port.Port > 0 && !icmp.Is(port.Proto) {
				key := name + "/" + protocolName(port.Proto)
				all[key] = append(all[key], port.Port)
			}
		}
	}
	for id := range w.Identities {
		w.NamedPorts[id] = all
	}
	return policy.NewReference(&w)
}

func protocolName(proto uint8) string {
	return map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}[proto]
}
