// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print writes the state for people.
func (s State) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	line("Node\t%s of cluster %s", s.Node, orNone(s.Cluster))
	line("Agent\t%s", s.Version)
	if s.Relay.Connected {
		line("Relay\tconnected to %s since %s", s.Relay.Target, s.Relay.Since.Format(time.RFC3339))
	} else {
		line("Relay\tnot connected: %s", orNone(s.Relay.Error))
	}
	line("Stream\treceived %d, in the kernel %d", s.Relay.Position.Revision, s.Applied.Revision)
	line("Datapath\t%s", orNone(s.Datapath))
	line("Encryption\t%s", orNone(s.Encryption))
	line("Endpoints\t%d with the datapath, %d failing", s.Endpoints, s.EndpointsFailing)
	line("Services\t%d addresses", s.Services)
	for _, p := range s.Tables {
		if p.Pending+p.Failed > 0 {
			line("Table %s\t%d rows, %d pending, %d failed", p.Name, p.Rows, p.Pending, p.Failed)
		}
	}
	for _, m := range s.Maps {
		if m.Used*2 > m.Size {
			line("Map %s\t%d rows of %d (%d%%)", m.Name, m.Used, m.Size, m.Used*100/m.Size)
		}
	}
	for _, c := range s.Tunnels {
		line("Tunnels to %s\t%d of %d ready, %d with a session", c.Cluster, c.Ready, c.Wanted, c.Connected)
	}
	for _, p := range s.Peers {
		state := "ready"
		if !p.Ready {
			state = "not ready " + p.Error
		}
		handshake := "no handshake yet"
		if !p.LastHandshake.IsZero() {
			handshake = "last handshake " + p.LastHandshake.Format(time.RFC3339)
		}
		line("Peer %s/%s\t%s at %s, %s, %d bytes in, %d out", p.Cluster, p.Node, state, p.Endpoint, handshake, p.ReceivedBytes, p.SentBytes)
	}
	for _, p := range s.Policies {
		line("Policy %s\t%s %s", p.Key, orNone(p.Revision), cmp.Or(p.Error, p.Warning))
	}
	for _, d := range s.Drops {
		line("Dropped\t%d packets: %s (%s)", d.Packets, d.Reason, d.Hook)
	}
	for _, p := range s.Problems {
		line("Problem\t%s: %s", p.Code, p.Message)
	}
	return t.Flush()
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
