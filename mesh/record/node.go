// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/base64"
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Node is a node of a cluster, and a WireGuard peer once it has a key.
type Node struct {
	Name           string
	Addresses      []netip.Addr // the first is the tunnel's endpoint
	PodCIDRs       []netip.Prefix
	PublicKey      PublicKey // zero: no other cluster sends to its pods
	Port           uint16    // of WireGuard, UDP; 0 without a key
	Zone           string
	PodsInPodCIDRs bool              // its CNI hands out addresses from PodCIDRs, so AllowedIPs may be the CIDRs
	Labels         map[string]string // only of the own cluster's nodes
}

// maxNodeLabels bounds a node's labels. Feature discovery gives nodes some hundreds.
const maxNodeLabels = 1024

// PublicKey of a WireGuard peer (Curve25519).
type PublicKey [32]byte

// IsZero says that there is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// String is the key's base64; empty if there is none.
func (k PublicKey) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k[:])
}

// Kind is KindNode.
func (*Node) Kind() string { return KindNode }

func (n *Node) path() (string, error) { return n.Name, checkSubdomain("node.name", n.Name) }

type nodeReader struct{ *recordv1.Node }

func (r nodeReader) names() Object { return &Node{Name: r.GetName()} }

func (r nodeReader) parse() (Object, error) {
	n := &Node{Name: intern(r.GetName()), Zone: intern(r.GetZone()), PodsInPodCIDRs: r.GetPodsInPodCidrs()}
	var err error
	if n.Addresses, err = parseAddrs("node.addresses", r.GetAddresses()); err != nil {
		return nil, err
	}
	if n.PodCIDRs, err = parseCIDRs("node.pod_cidrs", r.GetPodCidrs()); err != nil {
		return nil, err
	}
	if err := checkText("node.zone", n.Zone); err != nil {
		return nil, err
	}
	if n.Labels, err = parseLabels("node.labels", r.GetLabels(), maxNodeLabels); err != nil {
		return nil, err
	}
	if r.GetWireguardPublicKey() == "" {
		return n, checkPortOrNone("node.wireguard_port", r.GetWireguardPort())
	}
	if n.PublicKey, err = parsePublicKey("node.wireguard_public_key", r.GetWireguardPublicKey()); err != nil {
		return nil, err
	}
	n.Port, err = parsePort("node.wireguard_port", r.GetWireguardPort())
	return n, err
}

func parsePublicKey(field, s string) (PublicKey, error) {
	key, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(key) != 32 || len(s) != 44 {
		return PublicKey{}, reject(ReasonInvalidKey, field, "not the base64 of 32 bytes")
	}
	if k := PublicKey(key); !k.IsZero() {
		return k, nil
	}
	return PublicKey{}, reject(ReasonInvalidKey, field, "all zero")
}

func (n *Node) check(c Claim) error {
	for _, a := range n.Addresses {
		if err := c.checkNodeAddress(a); err != nil {
			return err
		}
	}
	for _, p := range n.PodCIDRs {
		if !c.ownsPrefix(p) {
			return reject(ReasonAddressOutside, "node.pod_cidrs", "%s is not within the cluster's pod CIDRs", p)
		}
	}
	return nil
}

// checkNodeAddress keeps a node from announcing an address whose traffic isn't its own: with cryptokey routing an
// address in AllowedIPs draws that traffic in.
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
