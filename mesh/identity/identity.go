// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package identity turns what a pod is (cluster, namespace, service account, labels) into a number that a packet's
// verdict can be looked up by, and back.
//
//	pod + namespace ── PodLabels ──► label set ── Allocate ──► number (MeshIdentity, record Identity)
//
// Pods with equal label sets share a number, so the datapath's tables grow with kinds of pods and not with pods.
// The package is pure: whoever allocates brings what is already allocated and stores what comes out.
package identity

import "fmt"

// Number is an identity as it travels in maps and records: 24 bits, clusterID<<16 | local. Node-local identities of
// CIDRs have CIDRBit set and are never published.
type Number = uint32

// Reserved numbers. They mean the same in every cluster.
const (
	// Unknown is nobody: an address that no record vouches for. It is always dropped.
	Unknown Number = 0
	// Host is the node itself.
	Host Number = 1
	// World is every address outside of the mesh that no policy names by a CIDR.
	World Number = 2
	// RemoteNode is any other node of any cluster.
	RemoteNode Number = 6

	// FirstLocal is the first local number that a label set can get; below are the reserved ones.
	FirstLocal = 256
	// LastLocal is the last one.
	LastLocal = 1<<16 - 1

	// CIDRBit marks the node-local numbers of CIDRs that policies name.
	CIDRBit Number = 1 << 24
)

// Of returns the number of a cluster's local identity.
func Of(clusterID uint8, local uint16) Number {
	return Number(clusterID)<<16 | Number(local)
}

// ClusterOf returns the id of the cluster that an identity belongs to; 0 for reserved ones and those of CIDRs, which
// belong to none.
func ClusterOf(n Number) uint8 {
	if IsCIDR(n) {
		return 0
	}
	return uint8(n >> 16)
}

// LocalOf returns the part of the number that its cluster chose.
func LocalOf(n Number) uint16 { return uint16(n) }

// IsCIDR says whether the number stands for a CIDR on this node.
func IsCIDR(n Number) bool { return n&CIDRBit != 0 }

// IsReserved says whether the number has a fixed meaning in every cluster.
func IsReserved(n Number) bool { return n < FirstLocal }

// IsPod says whether the number can stand for pods: of a cluster, and in the range that label sets get.
func IsPod(n Number) bool {
	return n < CIDRBit && ClusterOf(n) != 0 && LocalOf(n) >= FirstLocal
}

// Name returns the name of a reserved identity, or the number in a readable form.
func Name(n Number) string {
	switch {
	case n == Unknown:
		return "unknown"
	case n == Host:
		return "host"
	case n == World:
		return "world"
	case n == RemoteNode:
		return "remote-node"
	case IsCIDR(n):
		return fmt.Sprintf("cidr:%d", n&^CIDRBit)
	default:
		return fmt.Sprintf("%d:%d", ClusterOf(n), LocalOf(n))
	}
}
