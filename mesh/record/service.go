// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Service is a Kubernetes Service as its cluster defines it. Backends lie in Slices.
type Service struct {
	Namespace, Name string
	ClusterIPs      []netip.Addr // only meaningful in the cluster that wrote it
	External        []netip.Addr // likewise: of load balancers, and externalIPs
	ExternalByProxy bool         // External and node ports are left to kube-proxy: externalTrafficPolicy Local, loadBalancerSourceRanges
	Ports           []Port
	Global          bool // takes part in the mesh
	Shared          bool // offers its own backends to other clusters (only if global)
	Affinity        Affinity
	AffinityTimeout uint32 // seconds that a client keeps its backend; 0: no session affinity
	Headless        bool
	Selector        map[string]string // of its pods; empty: it has none
}

// Port is a service's port, or the port its pods listen on; the two are matched by name.
type Port struct {
	Name     string
	Protocol Protocol
	Number   uint16
	NodePort uint16 // of a service: where each node of its cluster serves it too; 0: nowhere
}

// Protocol is an IP protocol number (IANA).
type Protocol uint8

// Protocols that services and policies know.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String is the protocol's name as Kubernetes writes it.
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// Affinity says which clusters' backends a service prefers.
type Affinity uint8

// Affinities.
const (
	AffinityNone Affinity = iota
	AffinityLocal
	AffinityRemote
)

var affinities = map[recordv1.Affinity]Affinity{
	recordv1.Affinity_AFFINITY_NONE:   AffinityNone,
	recordv1.Affinity_AFFINITY_LOCAL:  AffinityLocal,
	recordv1.Affinity_AFFINITY_REMOTE: AffinityRemote,
}

// Kind is KindService.
func (*Service) Kind() string { return KindService }

func (s *Service) path() (string, error) { return namespaced("service", s.Namespace, s.Name) }

type serviceReader struct{ *recordv1.Service }

func (r serviceReader) names() Object {
	return &Service{Namespace: r.GetNamespace(), Name: r.GetName()}
}

func (r serviceReader) parse() (Object, error) {
	s := &Service{
		Namespace: intern(r.GetNamespace()), Name: r.GetName(), Global: r.GetGlobal(), Shared: r.GetShared(),
		AffinityTimeout: r.GetAffinityTimeoutSeconds(), Headless: r.GetHeadless(), ExternalByProxy: r.GetExternalByProxy(),
	}
	var err error
	if len(r.GetClusterIps()) > 0 {
		if s.ClusterIPs, err = parseAddrs("service.cluster_ips", r.GetClusterIps()); err != nil {
			return nil, err
		}
	}
	if len(r.GetExternalAddresses()) > 0 {
		if s.External, err = parseAddrsUpTo(maxExternal, "service.external_addresses", r.GetExternalAddresses()); err != nil {
			return nil, err
		}
	}
	var known bool
	if s.Affinity, known = affinities[r.GetAffinity()]; !known {
		return nil, reject(ReasonMalformed, "service.affinity", "%d is unknown", r.GetAffinity())
	}
	if s.Ports, err = parsePorts("service.ports", r.GetPorts()); err != nil {
		return nil, err
	}
	if len(r.GetSelector()) > 0 {
		s.Selector, err = parseLabels("service.selector", r.GetSelector(), maxLabels)
	}
	return s, err
}

func (s *Service) check(c Claim) error { return c.checkExported("service.namespace", s.Namespace) }

func (c Claim) checkExported(field, namespace string) error {
	if !c.exports(namespace) {
		return reject(ReasonNamespace, field, "%s is not on the allowlist", namespace)
	}
	return nil
}
