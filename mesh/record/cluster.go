// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Cluster describes a member of the mesh.
type Cluster struct {
	Name         string
	ID           uint8 // 1..255
	MeshID       string
	PodCIDRs     []netip.Prefix
	ServiceCIDRs []netip.Prefix
	Labels       map[string]string // what a clusterSelector matches
	Region, Zone string
	Version      string // of the operator that wrote it
	Capabilities []string
	Encryption   Encryption
}

// Encryption is what a cluster's own nodes do.
type Encryption struct {
	On       bool // WireGuard
	ScopeAll bool // the tunnel also carries what stays within the cluster
	Strict   bool // plaintext within the cluster is refused
}

// Kind is KindCluster.
func (*Cluster) Kind() string { return KindCluster }

func (*Cluster) path() (string, error) { return "", nil }

type clusterReader struct{ *recordv1.Cluster }

func (r clusterReader) names() Object { return &Cluster{Name: r.GetName()} }

func (r clusterReader) parse() (Object, error) {
	claim, err := ClaimFrom(r.Cluster)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Name: claim.Name, ID: claim.ID, MeshID: claim.MeshID, PodCIDRs: claim.PodCIDRs, Labels: r.GetLabels(),
		Region: r.GetRegion(), Zone: r.GetZone(), Version: r.GetVersion(), Capabilities: r.GetCapabilities(),
		// A record that says nothing wants WireGuard for all traffic: older operators wrote no encryption.
		Encryption: Encryption{
			On:       r.GetEncryption().GetMode() != "None",
			ScopeAll: r.GetEncryption().GetScope() != "InterCluster",
			Strict:   r.GetEncryption().GetStrict(),
		},
	}
	if c.ServiceCIDRs, err = parseCIDRs("cluster_info.service_cidrs", r.GetServiceCidrs()); err != nil {
		return nil, err
	}
	if n := len(c.Capabilities); n > maxLabels {
		return nil, reject(ReasonTooLarge, "cluster_info.capabilities", "has %d entries, more than %d", n, maxLabels)
	}
	for _, s := range append([]string{c.Region, c.Zone, c.Version}, c.Capabilities...) {
		if err := checkText("cluster_info", s); err != nil {
			return nil, err
		}
	}
	return c, checkLabels("cluster_info.labels", c.Labels, maxLabels)
}

// check also binds what a cluster says of itself to the claim, so that later records of it are held against what an
// administrator accepted and not against what the cluster changed.
func (c *Cluster) check(claim Claim) error {
	switch {
	case c.Name != claim.Name:
		return reject(ReasonWrongCluster, "cluster_info.name", "%q instead of %s", c.Name, claim.Name)
	case c.ID != claim.ID:
		return reject(ReasonWrongCluster, "cluster_info.id", "%d instead of %d", c.ID, claim.ID)
	case c.MeshID != claim.MeshID:
		return reject(ReasonWrongMesh, "cluster_info.mesh_id", "%q instead of %s", c.MeshID, claim.MeshID)
	}
	for _, p := range c.PodCIDRs {
		if !claim.ownsPrefix(p) {
			return reject(ReasonAddressOutside, "cluster_info.pod_cidrs", "%s is not within the cluster's pod CIDRs", p)
		}
	}
	return claim.checkLabelCluster("cluster_info.labels", c.Labels)
}
