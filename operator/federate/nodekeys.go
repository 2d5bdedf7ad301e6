// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// nodeKeys knows which node each WireGuard public key belongs to. A key is a peer's name to WireGuard: a cluster that
// announced another cluster's key as its own node's would take over that peer on every node of the mesh.
type nodeKeys struct {
	holder map[string]string // public key → record key of the node
	of     map[string]string // record key of the node → public key
}

func newNodeKeys() *nodeKeys {
	return &nodeKeys{holder: map[string]string{}, of: map[string]string{}}
}

// take notes a node's key, unless another node has it.
func (n *nodeKeys) take(key string, rec *recordv1.Record) error {
	public := rec.GetNode().GetWireguardPublicKey()
	if rec.GetNode() == nil {
		return nil
	}
	if other, held := n.holder[public]; public != "" && held && other != key {
		return duplicateKey(other)
	}
	n.release(key)
	if public != "" {
		n.holder[public], n.of[key] = key, public
	}
	return nil
}

func duplicateKey(holder string) error {
	return &record.Error{Reason: record.ReasonDuplicate, Field: "node.wireguard_public_key", Detail: "is already the key of " + holder}
}

// seize notes a key of this cluster's own node, which counts more, and names the record that loses it.
func (n *nodeKeys) seize(key string, rec *recordv1.Record) (loser string) {
	public := rec.GetNode().GetWireguardPublicKey()
	if other, held := n.holder[public]; public != "" && held && other != key {
		loser = other
		n.release(other)
	}
	n.release(key)
	if public != "" {
		n.holder[public], n.of[key] = key, public
	}
	return loser
}

func (n *nodeKeys) release(key string) {
	if public, ok := n.of[key]; ok {
		delete(n.holder, public)
		delete(n.of, key)
	}
}
