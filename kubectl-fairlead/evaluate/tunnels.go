// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"time"
)

// tunnelsCheck judges the tunnels from this cluster's nodes to all others.
func tunnelsCheck(s Snapshot) Check {
	var f finding
	var up, all int
	var oldest, youngest time.Duration
	for _, n := range s.Nodes {
		for _, p := range n.Status.Peers {
			all++
			var since time.Duration
			if p.LastHandshakeTime != nil {
				since = max(0, s.Taken.Sub(p.LastHandshakeTime.Time))
			}
			if !p.Ready {
				f.fail(tunnelHint(n.Status.WireGuardPort), fmt.Sprintf("%s → %s/%s: %s", n.Name, p.Cluster, p.Node, handshake(p.LastHandshakeTime != nil, since)))
				continue
			}
			up++
			if p.LastHandshakeTime != nil {
				oldest = max(oldest, since)
				if youngest == 0 || since < youngest {
					youngest = since
				}
			}
		}
	}
	summary := fmt.Sprintf("%d of %d up", up, all)
	if oldest > 0 {
		summary += fmt.Sprintf(", last handshakes %s to %s ago", youngest.Round(time.Second), oldest.Round(time.Second))
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

func handshake(seen bool, since time.Duration) string {
	if !seen {
		return "no handshake yet"
	}
	return "last handshake " + since.Round(time.Second).String() + " ago"
}
