// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// tunnelsCheck judges the tunnels from this cluster's nodes to all others.
func tunnelsCheck(s Snapshot) Check {
	var f finding
	var up, all int
	var latest time.Time
	for _, n := range s.Nodes {
		for _, t := range n.Status.Tunnels {
			all, up = all+int(t.Wanted), up+int(t.Ready)
			if at := t.LatestHandshakeTime; at != nil && at.After(latest) {
				latest = at.Time
			}
			hint := tunnelHint(n.Status.WireGuardPort)
			for _, b := range t.Broken {
				f.fail(hint, fmt.Sprintf("%s → %s/%s: %s", n.Name, t.Cluster, b.Node, broken(b, s.Taken)))
			}
			if more := int(t.Wanted-t.Ready) - len(t.Broken); more > 0 {
				f.fail(hint, fmt.Sprintf("%s → %s: %d more tunnels are not up", n.Name, t.Cluster, more))
			}
		}
	}
	summary := fmt.Sprintf("%d of %d up", up, all)
	if !latest.IsZero() {
		summary += ", latest handshake " + ago(latest, s.Taken)
	}
	if all == 0 && len(s.KubeNodes)+len(s.Clusters) > 1 {
		f.warn("nodes exchange their keys through the operator: see the section nodes", "no node has reported a tunnel yet")
	}
	return f.check("fl-tunnels-up", SectionTunnels, summary)
}

func tunnelHint(port int32) string {
	if port == 0 {
		port = 51871
	}
	return fmt.Sprintf("see that UDP port %d passes between the two nodes, both ways; until then packets between their pods are dropped, not sent in the clear", port)
}

func broken(b v1alpha1.BrokenTunnel, now time.Time) string {
	if b.Error != "" {
		return b.Error
	}
	if b.LastHandshakeTime == nil {
		return "no handshake yet"
	}
	return "last handshake " + ago(b.LastHandshakeTime.Time, now)
}

func ago(at, now time.Time) string {
	return max(0, now.Sub(at)).Round(time.Second).String() + " ago"
}
