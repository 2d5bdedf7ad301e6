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
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
)

// sample is a made-up mesh in which everything that a rule could decide happens once.
type sample struct {
	world    *policy.World
	subjects []uint32
	peers    []policy.Connection // of which Peer and Addr count
	ports    []policy.Connection // of which Proto and Port count
}

// labelNamespaceName is what the API server puts on each namespace.
const labelNamespaceName = "kubernetes.io/metadata.name"

// maker makes a sample. It fails when that would need too many pods.
type maker struct {
	sample
	related   *words // of all policies that may have a say
	cluster   *world.Cluster
	named     map[string][]uint16
	next      uint16
	remote    map[string]uint8
	tooMany   bool
	numbers   map[string]uint32
	clusterID uint8
}

// makeSample for a rule: subject are the words of whom its policy selects, rule those of the
// rule itself, homes the namespaces of policies that may have a say.
func makeSample(c *world.Cluster, related, subject, rule *words, homes []string) (sample, bool) {
	m := &maker{related: related, cluster: c, next: identity.FirstLocal, remote: map[string]uint8{}, numbers: map[string]uint32{}, clusterID: max(c.ID, 1)}
	m.world = &policy.World{
		Cluster: c.Name, Clusters: map[string]map[string]string{}, Identities: map[uint32]map[string]string{}, NamedPorts: map[uint32]map[string][]uint16{},
	}
	m.world.Clusters[c.Name] = c.Labels
	if c.Labels == nil {
		m.world.Clusters[c.Name] = map[string]string{}
	}
	m.makePorts()
	pods, namespaces := m.podsFor(subject), m.namespacesFor(subject, homes)
	for _, ns := range namespaces {
		for _, l := range pods {
			m.subjects = append(m.subjects, m.pod(c.Name, ns, l))
		}
	}
	clusters := m.clustersFor(rule)
	for _, ns := range m.namespacesFor(rule, homes) {
		for _, l := range m.podsFor(rule) {
			for _, cluster := range clusters {
				id := m.pod(cluster, ns, l)
				m.peers = append(m.peers, policy.Connection{Peer: id})
				for _, p := range related.cidrs { // CIDRs mean pods, too
					m.peers = append(m.peers, policy.Connection{Peer: id, Addr: p.Addr()})
				}
			}
		}
	}
	for _, a := range edges(related.cidrs) {
		m.peers = append(m.peers, policy.Connection{Peer: identity.World, Addr: a}, policy.Connection{Peer: identity.RemoteNode, Addr: a})
	}
	m.peers = append(m.peers, policy.Connection{Peer: identity.Unknown, Addr: netip.MustParseAddr("203.0.113.78")})
	return m.sample, !m.tooMany
}

func (m *maker) makePorts() {
	numbers := m.related.ports
	m.named = map[string][]uint16{}
	for i, name := range m.related.names {
		if len(validation.IsValidPortName(name)) > 0 {
			continue
		}
		number := uint16(40000 + i%20000)
		numbers = append(numbers, number)
		for _, proto := range []string{"TCP", "UDP", "SCTP"} {
			m.named[name+"/"+proto] = []uint16{number}
		}
	}
	for _, proto := range []uint8{6, 17, 132} {
		for _, p := range portEdges(numbers) {
			m.ports = append(m.ports, policy.Connection{Proto: proto, Port: p})
		}
	}
	m.ports = append(m.ports, policy.Connection{Proto: 1})
}

// namespace as its pods' identities have it.
type namespace struct {
	name   string
	labels map[string]string
}

func (m *maker) sets(all, of []metav1.LabelSelector) []map[string]string {
	sets, ok := vocabularyOf(all).all(of, all)
	m.tooMany = m.tooMany || !ok
	return sets
}

func (m *maker) podsFor(w *words) []map[string]string { return m.sets(m.related.pods, w.pods) }

func (m *maker) namespacesFor(w *words, homes []string) []namespace {
	var out []namespace
	for _, name := range homes {
		out = append(out, namespace{name, m.cluster.Namespaces[name]})
	}
	for i, set := range m.sets(m.related.namespaces, w.namespaces) {
		name := fmt.Sprintf("%s-%d", fresh, i)
		if value := set[labelNamespaceName]; value != "" {
			name = value
		}
		out = append(out, namespace{name, set})
	}
	return out
}

func (m *maker) clustersFor(w *words) []string {
	out := []string{m.cluster.Name}
	for i, set := range m.sets(m.related.clusters, w.clusters) {
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
	for k, v := range own {
		if !strings.HasPrefix(k, identity.LabelNamespacePrefix) && k != identity.LabelCluster && k != identity.LabelNamespace {
			l[k] = v
		}
	}
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
	m.tooMany = m.tooMany || len(m.numbers) > most*16
	m.numbers[key] = id
	m.world.Identities[id] = l
	m.world.NamedPorts[id] = m.named
	return id
}

// matching finds the connections that a rule matches by itself; nil if there is none. Which ports those are is the same for
// all peers, but for names, which only pods have: pods are tried first.
func (s *sample) matching(solo *policy.Reference, r policy.Rule) (pairs, ports []policy.Connection) {
	try := func(pair, port policy.Connection) bool {
		_, is := matching(solo.Explain(join(pair, port)), r)
		return is
	}
	for _, subject := range s.subjects {
		for _, peer := range s.peers {
			pair := policy.Connection{Subject: subject, Peer: peer.Peer, Addr: peer.Addr, Dir: r.Direction}
			if ports == nil {
				for _, port := range s.ports {
					if try(pair, port) {
						ports = append(ports, port)
					}
				}
				if ports != nil {
					pairs = append(pairs, pair)
				}
				continue
			}
			for _, port := range ports {
				if try(pair, port) {
					pairs = append(pairs, pair)
					break
				}
			}
		}
	}
	return pairs, ports
}

// matchesAny is matching that ends with the first.
func (s *sample) matchesAny(solo *policy.Reference, r policy.Rule) bool {
	for _, subject := range s.subjects {
		for _, peer := range s.peers {
			pair := policy.Connection{Subject: subject, Peer: peer.Peer, Addr: peer.Addr, Dir: r.Direction}
			for _, port := range s.ports {
				if _, is := matching(solo.Explain(join(pair, port)), r); is {
					return true
				}
			}
		}
	}
	return false
}

func join(pair, port policy.Connection) policy.Connection {
	pair.Proto, pair.Port = port.Proto, port.Port
	return pair
}

// reference over the sample for some policies.
func (s *sample) reference(models []*policy.Model) *policy.Reference {
	w := *s.world
	w.Identities = maps.Clone(w.Identities)
	w.Policies = models
	return policy.NewReference(&w)
}
