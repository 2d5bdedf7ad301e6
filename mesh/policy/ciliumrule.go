// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
)

// ciliumRule is a rule of either direction, that allows or denies. A list that is nil is not given, which is something else than
// one that is empty.
type ciliumRule struct {
	FromEndpoints *[]metav1.LabelSelector `json:"fromEndpoints"`
	FromEntities  *[]string               `json:"fromEntities"`
	FromCIDR      *[]string               `json:"fromCIDR"`
	FromCIDRSet   *[]ciliumCIDR           `json:"fromCIDRSet"`
	FromNodes     *[]json.RawMessage      `json:"fromNodes"`
	FromGroups    json.RawMessage         `json:"fromGroups"`
	FromRequires  json.RawMessage         `json:"fromRequires"`

	ToEndpoints *[]metav1.LabelSelector `json:"toEndpoints"`
	ToEntities  *[]string               `json:"toEntities"`
	ToCIDR      *[]string               `json:"toCIDR"`
	ToCIDRSet   *[]ciliumCIDR           `json:"toCIDRSet"`
	ToNodes     *[]json.RawMessage      `json:"toNodes"`
	ToGroups    json.RawMessage         `json:"toGroups"`
	ToServices  *[]ciliumService        `json:"toServices"`
	ToFQDNs     json.RawMessage         `json:"toFQDNs"`
	ToRequires  json.RawMessage         `json:"toRequires"`

	ToPorts        []ciliumPorts `json:"toPorts"`
	ICMPs          []ciliumICMP  `json:"icmps"`
	Authentication struct {
		Mode string `json:"mode"`
	} `json:"authentication"`
}

type ciliumCIDR struct {
	CIDR              string          `json:"cidr"`
	Except            []string        `json:"except"`
	CIDRGroupRef      string          `json:"cidrGroupRef"`
	CIDRGroupSelector json.RawMessage `json:"cidrGroupSelector"`
}

type ciliumService struct {
	Service struct {
		Name      string `json:"serviceName"`
		Namespace string `json:"namespace"`
	} `json:"k8sService"`
	Selector json.RawMessage `json:"k8sServiceSelector"`
}

// ciliumList is a field that says whom a rule is about.
type ciliumList struct {
	name  string
	empty bool // it is about nobody then, with whatever else the rule has
	read  func(m *Model, field string, dir Direction, r *rule) error
}

var errNotEnforced = errors.New("is not enforced yet")

func notEnforced(*Model, string, Direction, *rule) error { return errNotEnforced }

// lists are the fields of a direction that say whom the rule is about, as far as they are given.
func (in *ciliumRule) lists(dir Direction) (out []ciliumList) {
	prefix, endpoints, entities, cidrs, sets, nodes, groups := "from", in.FromEndpoints, in.FromEntities, in.FromCIDR, in.FromCIDRSet, in.FromNodes, in.FromGroups
	if dir == Egress {
		prefix, endpoints, entities, cidrs, sets, nodes, groups = "to", in.ToEndpoints, in.ToEntities, in.ToCIDR, in.ToCIDRSet, in.ToNodes, in.ToGroups
	}
	add := func(name string, there, empty bool, read func(*Model, string, Direction, *rule) error) {
		if there {
			out = append(out, ciliumList{prefix + name, empty, read})
		}
	}
	add("Endpoints", endpoints != nil, endpoints != nil && len(*endpoints) == 0, func(m *Model, field string, dir Direction, r *rule) error {
		return m.ciliumEndpoints(field, dir, r, *endpoints)
	})
	add("Entities", entities != nil, entities != nil && len(*entities) == 0, func(m *Model, field string, dir Direction, r *rule) error {
		return m.ciliumEntities(field, dir, r, *entities)
	})
	add("CIDR", cidrs != nil, cidrs != nil && len(*cidrs) == 0, func(_ *Model, _ string, _ Direction, r *rule) error {
		return ciliumCIDRs(r, *cidrs)
	})
	add("CIDRSet", sets != nil, sets != nil && len(*sets) == 0, func(_ *Model, _ string, _ Direction, r *rule) error {
		return ciliumCIDRSets(r, *sets)
	})
	add("Nodes", nodes != nil, nodes != nil && len(*nodes) == 0, notEnforced)
	add("Groups", given(groups), false, notEnforced)
	if dir == Egress {
		add("Services", in.ToServices != nil, in.ToServices != nil && len(*in.ToServices) == 0, func(_ *Model, _ string, _ Direction, r *rule) error {
			return ciliumServices(r, *in.ToServices)
		})
		add("FQDNs", given(in.ToFQDNs), false, notEnforced)
	}
	return out
}

// peers are the lists of a direction, of which a rule has one.
func (in *ciliumRule) peers(dir Direction) ([]ciliumList, error) {
	lists := in.lists(dir)
	var names []string
	for _, l := range lists {
		if !l.empty {
			names = append(names, l.name)
		}
	}
	if len(names) > 1 {
		return nil, fmt.Errorf("%s can't be in one rule", strings.Join(names, " and "))
	}
	return lists, nil
}

// wrongDirection says whether a rule has fields of the other direction.
func (in *ciliumRule) wrongDirection(dir Direction) error {
	other := 1 - dir
	lists := in.lists(other)
	name, text := in.requires(other)
	if given(text) {
		lists = append(lists, ciliumList{name: name})
	}
	if len(lists) > 0 {
		return fmt.Errorf("%s is not for %s", lists[0].name, dir)
	}
	return nil
}

func (in *ciliumRule) requires(dir Direction) (name string, text json.RawMessage) {
	if dir == Egress {
		return "toRequires", in.ToRequires
	}
	return "fromRequires", in.FromRequires
}

// ciliumEndpoints adds pods by their labels. Those of other clusters are meant only by a selector that names clusters.
func (m *Model) ciliumEndpoints(field string, dir Direction, r *rule, in []metav1.LabelSelector) error {
	for i := range in {
		at := fmt.Sprintf("%s[%d]", field, i)
		s, err := m.endpoints(at, &in[i], false)
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		if len(s.reserved) > 0 {
			if err := m.ciliumEntities(at, dir, r, s.reserved); err != nil {
				return err
			}
			continue
		}
		if _, err := compileSelector(&s.pods); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		namespaces, err := compileSelector(&s.namespaces)
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		pods := &podSelector{local: !s.namesClusters, namespaces: namespaces}
		if pods.namespace = s.namespace; !s.namesNamespaces {
			pods.namespace = m.rec.Namespace // none for clusterwide policies: all namespaces
		}
		p := peer{pods: pods}
		if m.podPeers(at, r.kind, &s.pods, &p) {
			r.peers = append(r.peers, p)
		}
	}
	return nil
}

// ciliumServices adds what is behind services.
func ciliumServices(r *rule, in []ciliumService) error {
	for i, s := range in {
		switch name := (ServiceName{s.Service.Namespace, s.Service.Name}); {
		case given(s.Selector):
			return fmt.Errorf("element %d: k8sServiceSelector %w", i, errNotEnforced)
		case name.Name == "" || name.Namespace == "":
			return fmt.Errorf("element %d: k8sService: needs serviceName and namespace", i)
		default:
			r.peers = append(r.peers, peer{service: name})
		}
	}
	return nil
}

// otherNodes is, as a peer, all nodes but the subject's own. No packet bears it.
const otherNodes = 1<<31 | identity.RemoteNode

// ciliumEntities adds what has a name of its own.
func (m *Model) ciliumEntities(field string, dir Direction, r *rule, in []string) error {
	for _, name := range in {
		switch name {
		case "all":
			r.anyPeer = true
		case "world":
			r.peers = append(r.peers, peer{entity: identity.World})
		case "cluster":
			r.peers = append(r.peers, peer{pods: &podSelector{local: true}}, peer{entity: identity.RemoteNode})
		case "host":
			r.peers = append(r.peers, peer{entity: identity.Host})
			if dir == Ingress && r.kind == RuleDeny {
				m.warn(field + ": host: a node always reaches its own pods; it is not denied")
			}
		case "remote-node":
			r.peers = append(r.peers, peer{entity: otherNodes})
		case "kube-apiserver":
			m.closeCilium(field+": kube-apiserver", r, errNotEnforced)
			if r.kind == RuleDeny { // on a node, or outside
				r.peers = append(r.peers, peer{entity: identity.World}, peer{entity: identity.RemoteNode})
			}
		case "none":
		case "health", "ingress":
			m.warn(fmt.Sprintf("%s: %s: there is no such endpoint here; it means nobody", field, name))
		case "init", "unmanaged":
			m.warn(fmt.Sprintf("%s: %s: means nobody who is known", field, name))
			if r.kind == RuleDeny { // those who aren't
				r.peers = append(r.peers, peer{cidr: nobody})
			}
		default:
			return fmt.Errorf("%q is not known", name)
		}
	}
	return nil
}

// ciliumCIDRs adds ranges of addresses, or single ones. They mean what is outside of the mesh.
func ciliumCIDRs(r *rule, in []string) error {
	sets := make([]ciliumCIDR, len(in))
	for i, text := range in {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
		sets[i].CIDR = text
	}
	return ciliumCIDRSets(r, sets)
}

func ciliumCIDRSets(r *rule, in []ciliumCIDR) error {
	r.outside = true
	for i, set := range in {
		if set.CIDRGroupRef != "" || given(set.CIDRGroupSelector) {
			return fmt.Errorf("element %d: groups of CIDRs are not read yet", i)
		}
		prefix, err := parseCIDR(set.CIDR)
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		p, nothing := peer{cidr: prefix}, false
		for n, text := range set.Except {
			sub, err := parseCIDR(text)
			if err == nil && !prefix.Overlaps(sub) {
				err = fmt.Errorf("%s is not a part of %s", sub, prefix)
			}
			if err != nil {
				return fmt.Errorf("element %d: except[%d]: %w", i, n, err)
			}
			nothing = nothing || sub.Bits() <= prefix.Bits()
			p.except = append(p.except, sub)
		}
		if !nothing {
			r.peers = append(r.peers, p)
		}
	}
	return nil
}
