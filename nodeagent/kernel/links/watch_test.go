// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package links_test

import (
	"context"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

func TestWatchTellsOfEachKindOfChange(t *testing.T) {
	node, pod := nstest.New(t), nstest.New(t)
	ctx, cancel := context.WithCancel(context.Background())
	calls := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- node.Try(func() error { return links.Watch(ctx, func() { calls <- struct{}{} }) })
	}()
	<-calls // the first is unconditional

	nstest.Veth(t, node, "veth1", nil, pod, "eth0", nil)
	<-calls
	changes := map[string]func() error{
		"address": func() error { return nstest.Up("veth1", "10.1.0.1/24") },
		"route":   func() error { return nstest.Route("10.9.0.0/24", "veth1", "") },
		"neighbour": func() error {
			link, err := netlink.LinkByName("veth1")
			if err != nil {
				return err
			}
			return netlink.NeighSet(&netlink.Neigh{
				LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
				IP: []byte{10, 1, 0, 2}, HardwareAddr: []byte{2, 0, 0, 0, 0, 1},
			})
		},
	}
	for _, kind := range []string{"address", "route", "neighbour"} {
		t.Log("changing the " + kind)
		node.Do(t, changes[kind])
		<-calls
	}
	cancel()
	for {
		select {
		case <-calls: // a last one may have been under way
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}
