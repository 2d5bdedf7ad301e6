// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

var genServiceNames = []ServiceName{{"a", "s"}, {"b", "s"}, {"b", "t"}}

func genServiceName(t *rapid.T) ServiceName {
	return rapid.SampledFrom(genServiceNames).Draw(t, "service")
}

// genServices is what clusters say of a service.
func genServices(t *rapid.T) map[string]Service {
	out := map[string]Service{}
	for _, cluster := range []string{"east", "west"} {
		if rapid.IntRange(0, 3).Draw(t, "no service in "+cluster) == 0 {
			continue
		}
		s := Service{Selector: map[string]string{}, Global: rapid.Bool().Draw(t, "global")}
		s.Shared = s.Global && rapid.Bool().Draw(t, "shared")
		if v := rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "app of the service"); v != "" {
			s.Selector["app"] = v
		}
		if v := rapid.SampledFrom([]string{"", "", "1"}).Draw(t, "tier of the service"); v != "" {
			s.Selector["tier"] = v
		}
		for _, a := range rapid.SliceOfNDistinct(rapid.SampledFrom(genAddresses), 0, 2, rapid.ID[string]).Draw(t, "backends") {
			s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
		}
		slices.SortFunc(s.Addresses, netip.Addr.Compare)
		out[cluster] = s
	}
	return out
}

func genMeshService(t *rapid.T) v1alpha1.MeshPolicyService {
	name := genServiceName(t)
	return v1alpha1.MeshPolicyService{Namespace: name.Namespace, Name: name.Name}
}

// behind says whether somebody is a pod behind a service, or is behind it at all: by an address, or as the own node, which has others.
func (o *oracle) behind(name ServiceName, who oraclePeer) (asPod bool, is truth) {
	own, there := o.services[name][o.local]
	if !there {
		return false, no
	}
	at := false
	for cluster, s := range o.services[name] {
		if cluster != o.local && (!own.Global || !s.Global || !s.Shared) {
			continue
		}
		at = at || who.addr.IsValid() && slices.Contains(s.Addresses, who.addr)
		if who.pod == nil || len(s.Selector) == 0 || who.pod.cluster != cluster || who.pod.namespace != name.Namespace {
			continue
		}
		has := true
		for k, v := range s.Selector {
			has = has && who.pod.labels[k] == v
		}
		asPod = asPod || has
	}
	switch {
	case asPod || at:
		return asPod, yes
	case !who.own || len(own.Addresses) == 0:
		return false, no
	case o.node == nil:
		return false, unknown
	}
	return false, truthOf(slices.ContainsFunc(o.node.Addresses, func(a netip.Addr) bool { return slices.Contains(own.Addresses, a) }))
}

// asPod says whether a peer of a rule means somebody as a pod, who has names for ports then.
func (o *oracle) asPod(p v1alpha1.MeshPolicyPeer, who oraclePeer) bool {
	if len(p.Services) > 0 {
		return slices.ContainsFunc(p.Services, func(s v1alpha1.MeshPolicyService) bool {
			is, _ := o.behind(ServiceName{s.Namespace, s.Name}, who)
			return is
		})
	}
	return p.CIDR == "" && p.NodeSelector == nil
}
