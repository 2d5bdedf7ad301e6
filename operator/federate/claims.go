// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Decision is what this cluster makes of a MeshCluster object.
type Decision struct {
	// Claim is what that cluster may say; nil if Refused.
	Claim *record.Claim
	// Refused says why nothing of it is taken.
	Refused error
	// Frozen keeps what was imported and takes nothing new.
	Frozen bool
}

// ownClaim is what this cluster claims for itself.
func ownClaim(m *v1alpha1.ClusterMeshSpec) (record.Claim, error) {
	return record.ClaimFrom(&recordv1.Cluster{
		Name: m.ClusterName, Id: uint32(m.ClusterID), MeshId: m.MeshID, PodCidrs: m.PodCIDRs,
		Labels: map[string]string{v1alpha1.LabelCluster: m.ClusterName},
	})
}

// Decide judges every MeshCluster against this cluster and against each other. Of two that want the same number or
// address, the older object keeps it.
func Decide(mesh *v1alpha1.ClusterMeshSpec, clusters []v1alpha1.MeshCluster) map[string]Decision {
	decisions := map[string]Decision{}
	if mesh == nil {
		return decisions
	}
	own, err := ownClaim(mesh)
	if err != nil {
		return decisions
	}
	sorted := slices.Clone(clusters)
	slices.SortFunc(sorted, func(a, b v1alpha1.MeshCluster) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	taken := []record.Claim{own}
	for _, c := range sorted {
		d := Decision{Frozen: c.Spec.Suspend}
		claim, err := claimOf(mesh.MeshID, &c)
		if err == nil {
			err = conflict(claim, taken)
		}
		if err != nil {
			d.Refused = err
		} else {
			taken = append(taken, claim)
			d.Claim = &claim
		}
		decisions[c.Name] = d
	}
	// One list for all: a claim's own ranges are no node addresses either.
	ranges := podCIDRs(taken)
	for _, d := range decisions {
		if d.Claim != nil {
			d.Claim.MeshPodCIDRs = ranges
		}
	}
	return decisions
}

func claimOf(meshID string, c *v1alpha1.MeshCluster) (record.Claim, error) {
	if !record.ValidClusterName(c.Name) {
		return record.Claim{}, fmt.Errorf("%q can't be a cluster's name", c.Name)
	}
	if c.Spec.ClusterID < 1 || c.Spec.ClusterID > 255 {
		return record.Claim{}, fmt.Errorf("clusterID %d is not between 1 and 255", c.Spec.ClusterID)
	}
	claim := record.Claim{Name: c.Name, ID: uint8(c.Spec.ClusterID), MeshID: meshID, ExportNamespaces: c.Spec.ExportNamespaces}
	for _, s := range c.Spec.PodCIDRs {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return record.Claim{}, fmt.Errorf("podCIDRs: %w", err)
		}
		claim.PodCIDRs = append(claim.PodCIDRs, p.Masked())
	}
	if len(claim.PodCIDRs) == 0 {
		return record.Claim{}, errors.New("no podCIDRs")
	}
	return claim, nil
}

// conflict says what a claim wants that another one has already.
func conflict(c record.Claim, taken []record.Claim) error {
	for _, t := range taken {
		switch {
		case t.Name == c.Name:
			return fmt.Errorf("the name %q is this cluster's own or already taken", c.Name)
		case t.MeshID != c.MeshID:
			return fmt.Errorf("it belongs to mesh %q, this cluster to %q", c.MeshID, t.MeshID)
		case t.ID == c.ID:
			return fmt.Errorf("clusterID %d is already cluster %q's: give one of them another", c.ID, t.Name)
		}
		if p, both := record.Overlap(c, t); both {
			return fmt.Errorf("podCIDR %s overlaps with cluster %q's: addresses must be unique in a mesh", p, t.Name)
		}
	}
	return nil
}

func podCIDRs(claims []record.Claim) []netip.Prefix {
	var out []netip.Prefix
	for _, c := range claims {
		out = append(out, c.PodCIDRs...)
	}
	return out
}

// Admit judges a cluster that has no MeshCluster yet by what it says of itself, and gives the spec of its MeshCluster.
func Admit(mesh *v1alpha1.ClusterMeshSpec, announced *recordv1.Cluster, decisions map[string]Decision) (v1alpha1.MeshClusterSpec, error) {
	claim, err := record.ClaimFrom(announced)
	if err != nil {
		return v1alpha1.MeshClusterSpec{}, err
	}
	own, err := ownClaim(mesh)
	if err != nil {
		return v1alpha1.MeshClusterSpec{}, err
	}
	taken := []record.Claim{own}
	for _, d := range decisions {
		if d.Claim != nil {
			taken = append(taken, *d.Claim)
		}
	}
	slices.SortFunc(taken[1:], func(a, b record.Claim) int { return cmp.Compare(a.Name, b.Name) })
	if err := conflict(claim, taken); err != nil {
		return v1alpha1.MeshClusterSpec{}, err
	}
	spec := v1alpha1.MeshClusterSpec{ClusterID: int32(claim.ID), Acceptance: v1alpha1.AcceptAutomatic}
	for _, p := range claim.PodCIDRs {
		spec.PodCIDRs = append(spec.PodCIDRs, p.String())
	}
	return spec, nil
}
