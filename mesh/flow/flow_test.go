// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package flow

import "testing"

func TestADropNamesPolicyFileAndCommit(t *testing.T) {
	f := Flow{
		Verdict:     Denied,
		Source:      Peer{Cluster: "east", Namespace: "default", Pod: "xwing", Address: "10.14.1.5", Port: 40000},
		Destination: Peer{Cluster: "west", Namespace: "default", Pod: "deathstar", Address: "10.24.1.7", Port: 80},
		Protocol:    "TCP",
		Policy: &Policy{
			Kind: "MeshNetworkPolicy", Namespace: "default", Name: "deathstar", Rule: "ingress default deny",
			Path: "policies/deathstar.yaml", Revision: "main@sha1:abc",
		},
	}
	want := "DENIED  east/default/xwing → west/default/deathstar:80/TCP  " +
		"policy default/MeshNetworkPolicy/deathstar (ingress default deny)  policies/deathstar.yaml @ main@sha1:abc"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestADropWithoutAPolicyNamesTheReason(t *testing.T) {
	f := Flow{
		Verdict: Dropped, Reason: "unknown-source", Protocol: "UDP",
		Source:      Peer{Kind: "unknown", Address: "10.24.9.9"},
		Destination: Peer{Address: "fd00::1", Port: 53},
	}
	want := "DROPPED  unknown(10.24.9.9) → [fd00::1]:53/UDP  unknown-source"
	if got := f.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
