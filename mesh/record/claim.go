// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Claim is what the reading cluster lets a writing cluster say about itself. It comes from the reader's MeshCluster
// object, never from the records being judged.
type Claim struct {
	Name     string
	ID       uint8
	MeshID   string
	PodCIDRs []netip.Prefix

	// ExportNamespaces limits whose services are taken; empty means all.
	ExportNamespaces []string

	// MeshPodCIDRs are the pod CIDRs of every other member. Node addresses must lie outside these too, or a node could
	// draw other clusters' pod traffic to itself. The claim's own PodCIDRs need not be repeated.
	MeshPodCIDRs []netip.Prefix
}

// ClaimFrom reads the claim that a cluster makes for itself. It serves to propose a MeshCluster for a cluster seen for
// the first time; afterwards the object, not the cluster's word, is what Validate takes.
func ClaimFrom(c *recordv1.Cluster) (Claim, error) {
	if err := checkClusterName("cluster_info.name", c.GetName()); err != nil {
		return Claim{}, err
	}
	if c.GetId() < 1 || c.GetId() > 255 {
		return Claim{}, reject(ReasonIdentityOutOfRange, "cluster_info.id", "%d is not within 1..255", c.GetId())
	}
	if err := checkLabel("cluster_info.mesh_id", c.GetMeshId()); err != nil {
		return Claim{}, err
	}
	if n := len(c.GetPodCidrs()); n == 0 || n > maxCIDRs {
		return Claim{}, reject(ReasonInvalidAddress, "cluster_info.pod_cidrs", "has %d entries, want 1..%d", n, maxCIDRs)
	}
	claim := Claim{Name: c.GetName(), ID: uint8(c.GetId()), MeshID: c.GetMeshId()}
	for _, s := range c.GetPodCidrs() {
		p, err := parsePodCIDR("cluster_info.pod_cidrs", s)
		if err != nil {
			return Claim{}, err
		}
		claim.PodCIDRs = append(claim.PodCIDRs, p)
	}
	return claim, nil
}

// Overlap finds a pod CIDR that two claims both want. Two clusters with one cannot both be routed.
func Overlap(a, b Claim) (netip.Prefix, bool) {
	for _, p := range a.PodCIDRs {
		for _, q := range b.PodCIDRs {
			if p.Overlaps(q) {
				if p.Bits() > q.Bits() {
					return p, true
				}
				return q, true
			}
		}
	}
	return netip.Prefix{}, false
}

// OwnsIdentity tells whether a number lies in the cluster's range. The lowest 256 of each range stay reserved.
func (c Claim) OwnsIdentity(id uint32) bool {
	return id>>16 == uint32(c.ID) && id&0xffff >= 256
}

// OwnsAddress tells whether an address is one of the cluster's pod addresses.
func (c Claim) OwnsAddress(a netip.Addr) bool { return contains(c.PodCIDRs, a) }

func (c Claim) ownsPrefix(p netip.Prefix) bool {
	for _, own := range c.PodCIDRs {
		if own.Bits() <= p.Bits() && own.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

func (c Claim) exports(namespace string) bool {
	if len(c.ExportNamespaces) == 0 {
		return true
	}
	for _, n := range c.ExportNamespaces {
		if n == namespace {
			return true
		}
	}
	return false
}

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseAddr takes only the one canonical form of an address: everything downstream compares addresses as text or bytes,
// and a second spelling would be a second address.
func parseAddr(field, s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.String() != s {
		return netip.Addr{}, reject(ReasonInvalidAddress, field, "%q is not an IP address in canonical form", short(s))
	}
	return a, nil
}

func parseCIDR(field, s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() || p.Masked().String() != s {
		return netip.Prefix{}, reject(ReasonInvalidAddress, field, "%q is not a CIDR in canonical form", short(s))
	}
	return p, nil
}

// parsePodCIDR also refuses ranges that no pod network has and that would draw other traffic into the mesh.
func parsePodCIDR(field, s string) (netip.Prefix, error) {
	p, err := parseCIDR(field, s)
	if err != nil {
		return p, err
	}
	if p.Bits() == 0 {
		return p, reject(ReasonInvalidAddress, field, "%s is every address", s)
	}
	for _, forbidden := range unroutable {
		if p.Overlaps(forbidden) {
			return p, reject(ReasonInvalidAddress, field, "%s overlaps %s, which no pod can have", s, forbidden)
		}
	}
	return p, nil
}

// unroutable are ranges that never name a pod or node somewhere else.
var unroutable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"),
	netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), // unspecified and loopback
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("::ffff:0.0.0.0/96"),
}
