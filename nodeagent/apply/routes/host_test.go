// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Without the rule nobody looks our routes up, and packets to other clusters go to the default gateway. Others remove it.
func TestTheRuleToOurTableComesBack(t *testing.T) {
	node, peer := nstest.New(t), nstest.New(t)
	nstest.Veth(t, node, "wg", []string{"192.0.2.1/24"}, peer, "a", nil)
	node.Do(t, func() error {
		driver, err := routes.Open()
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName("wg")
		if err != nil {
			return err
		}
		tables := table.New()
		tables.Write(func(txn *table.Txn) {
			table.NewOwned(tables.ForTunnel().Tunnel).Set(txn, "test", map[string]table.Device{"tunnel": {Ifindex: uint32(link.Attrs().Index)}})
			tables.ForPlan().Routes.Put(txn, netip.MustParsePrefix("10.2.0.0/16"), table.Route{Via: string(topology.ViaTunnel)})
		})
		loop := apply.NewLoop(tables, HostStep(tables, driver, nil))
		pass := func() error {
			p := loop.Pass(t.Context(), time.Now(), func(string) bool { return true })
			return p.Outcomes[0].Err
		}
		if err := pass(); err != nil {
			return err
		}
		rule := netlink.NewRule()
		rule.Table, rule.Priority, rule.Family = routes.TableID, routes.RulePriority, unix.AF_INET
		if err := netlink.RuleDel(rule); err != nil {
			return fmt.Errorf("remove the rule: %w", err)
		}
		loop.Resync()
		if err := pass(); err != nil {
			return err
		}
		rules, err := netlink.RuleList(unix.AF_INET)
		if !slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Table == routes.TableID }) {
			t.Error("no rule leads to our table after a resync")
		}
		return err
	})
}
