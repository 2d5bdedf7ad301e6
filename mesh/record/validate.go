// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/base64"
	"net/netip"
	"strings"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Bounds on what one record may carry, well above what Kubernetes itself allows or makes.
const (
	maxCIDRs     = 16
	maxAddresses = 16
	maxLabels    = 256
	maxLabelKey  = 512
	maxText      = 2048
	maxPorts     = 256
	maxBackends  = 1000
	maxPolicy    = 64 << 10
)

const labelCluster = "fairlead.dev/cluster"

// Validate holds a record that was read under key against the claim of the cluster whose prefix it was read from.
// The error is always an *Error. It never panics, whatever the record holds.
func Validate(key string, rec *recordv1.Record, claim Claim) error {
	if ClusterOf(key) != claim.Name {
		return reject(ReasonWrongCluster, "", "key %q lies outside the prefix of %s", short(key), claim.Name)
	}
	if rec.GetCluster() != claim.Name {
		return reject(ReasonWrongCluster, "cluster", "record under %s says it is of %q", claim.Name, short(rec.GetCluster()))
	}
	own, err := Key(rec)
	if err != nil {
		return err
	}
	if own != key {
		return reject(ReasonKeyMismatch, "", "payload belongs under %q", short(own))
	}
	switch p := rec.GetPayload().(type) {
	case *recordv1.Record_ClusterInfo:
		return claim.checkCluster(p.ClusterInfo)
	case *recordv1.Record_Node:
		return claim.checkNode(p.Node)
	case *recordv1.Record_Identity:
		return claim.checkIdentity(p.Identity)
	case *recordv1.Record_Endpoint:
		return claim.checkEndpoint(p.Endpoint)
	case *recordv1.Record_Service:
		return claim.checkService(p.Service)
	case *recordv1.Record_BackendSlice:
		return claim.checkSlice(p.BackendSlice)
	case *recordv1.Record_Policy:
		return checkPolicy(p.Policy)
	}
	return reject(ReasonUnknownPayload, "payload", "record carries no payload that this version knows")
}

func (c Claim) checkCluster(info *recordv1.Cluster) error {
	announced, err := ClaimFrom(info)
	switch {
	case err != nil:
		return err
	case announced.Name != c.Name:
		return reject(ReasonWrongCluster, "cluster_info.name", "%q instead of %s", announced.Name, c.Name)
	case announced.ID != c.ID:
		return reject(ReasonWrongCluster, "cluster_info.id", "%d instead of %d", announced.ID, c.ID)
	case announced.MeshID != c.MeshID:
		return reject(ReasonWrongMesh, "cluster_info.mesh_id", "%q instead of %s", announced.MeshID, c.MeshID)
	}
	for _, p := range announced.PodCIDRs {
		if !c.ownsPrefix(p) {
			return reject(ReasonAddressOutside, "cluster_info.pod_cidrs", "%s is not within the cluster's pod CIDRs", p)
		}
	}
	if n := len(info.GetServiceCidrs()); n > maxCIDRs {
		return reject(ReasonTooLarge, "cluster_info.service_cidrs", "has %d entries, more than %d", n, maxCIDRs)
	}
	for _, s := range info.GetServiceCidrs() {
		if _, err := parseCIDR("cluster_info.service_cidrs", s); err != nil {
			return err
		}
	}
	if n := len(info.GetCapabilities()); n > maxLabels {
		return reject(ReasonTooLarge, "cluster_info.capabilities", "has %d entries, more than %d", n, maxLabels)
	}
	for _, s := range append([]string{info.GetRegion(), info.GetZone(), info.GetVersion()}, info.GetCapabilities()...) {
		if err := checkText("cluster_info", s); err != nil {
			return err
		}
	}
	return c.checkLabels("cluster_info.labels", info.GetLabels())
}

func (c Claim) checkNode(n *recordv1.Node) error {
	if count := len(n.GetAddresses()); count == 0 || count > maxAddresses {
		return reject(ReasonInvalidAddress, "node.addresses", "has %d entries, want 1..%d", count, maxAddresses)
	}
	for _, s := range n.GetAddresses() {
		a, err := parseAddr("node.addresses", s)
		if err != nil {
			return err
		}
		if err := c.checkNodeAddress(a); err != nil {
			return err
		}
	}
	if count := len(n.GetPodCidrs()); count > maxCIDRs {
		return reject(ReasonTooLarge, "node.pod_cidrs", "has %d entries, more than %d", count, maxCIDRs)
	}
	for _, s := range n.GetPodCidrs() {
		p, err := parseCIDR("node.pod_cidrs", s)
		if err != nil {
			return err
		}
		if !c.ownsPrefix(p) {
			return reject(ReasonAddressOutside, "node.pod_cidrs", "%s is not within the cluster's pod CIDRs", p)
		}
	}
	if err := checkText("node.zone", n.GetZone()); err != nil {
		return err
	}
	if n.GetWireguardPublicKey() == "" {
		return checkPortOrNone("node.wireguard_port", n.GetWireguardPort())
	}
	if err := checkWireGuardKey(n.GetWireguardPublicKey()); err != nil {
		return err
	}
	return checkPort("node.wireguard_port", n.GetWireguardPort())
}

// checkNodeAddress refuses what would make a node's traffic, or somebody else's, go where it should not.
func (c Claim) checkNodeAddress(a netip.Addr) error {
	const field = "node.addresses"
	if contains(unroutable, a) {
		return reject(ReasonNodeAddress, field, "%s is loopback, link-local, multicast or unspecified", a)
	}
	if contains(c.PodCIDRs, a) || contains(c.MeshPodCIDRs, a) {
		return reject(ReasonNodeAddress, field, "%s is a pod address", a)
	}
	return nil
}

func checkWireGuardKey(s string) error {
	const field = "node.wireguard_public_key"
	key, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(key) != 32 || len(s) != 44 {
		return reject(ReasonInvalidKey, field, "not the base64 of 32 bytes")
	}
	for _, b := range key {
		if b != 0 {
			return nil
		}
	}
	return reject(ReasonInvalidKey, field, "all zero")
}

func (c Claim) checkIdentity(id *recordv1.Identity) error {
	if err := c.checkIdentityNumber("identity.id", id.GetId()); err != nil {
		return err
	}
	return c.checkLabels("identity.labels", id.GetLabels())
}

func (c Claim) checkIdentityNumber(field string, id uint32) error {
	if !c.OwnsIdentity(id) {
		return reject(ReasonIdentityOutOfRange, field, "%d is not within %d..%d", id, uint32(c.ID)<<16|256, uint32(c.ID)<<16|0xffff)
	}
	return nil
}

// checkLabels makes sure that labels name the cluster that wrote them: a policy that selects a cluster relies on it.
func (c Claim) checkLabels(field string, labels map[string]string) error {
	if len(labels) > maxLabels {
		return reject(ReasonInvalidLabels, field, "has %d entries, more than %d", len(labels), maxLabels)
	}
	if got := labels[labelCluster]; got != c.Name {
		return reject(ReasonInvalidLabels, field, "%s is %q instead of %s", labelCluster, short(got), c.Name)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxSubdomain || hasControl(k) || hasControl(v) {
			return reject(ReasonInvalidLabels, field, "label %q is not one that Kubernetes allows", short(k))
		}
	}
	return nil
}

// checkText bounds free text that ends up in terminals, conditions and logs.
func checkText(field, s string) error {
	if len(s) > maxText {
		return reject(ReasonTooLarge, field, "text of %d bytes, more than %d", len(s), maxText)
	}
	if hasControl(s) {
		return reject(ReasonMalformed, field, "text %q holds control characters", short(s))
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r == 0x7f })
}
