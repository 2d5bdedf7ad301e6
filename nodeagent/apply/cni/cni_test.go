// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// Others remove our nftables table ("nft flush ruleset"), or its rules alone: they come back at the next look.
func TestTheMasqueradeComesBack(t *testing.T) {
	dir := t.TempDir()
	plugin := filepath.Join(dir, "plugin")
	if err := os.WriteFile(plugin, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	tables := table.New()
	tables.RecordWriter().Write(func(x table.RecordTxn) {
		x.Put("east/nodes/e1", &record.Node{Name: "e1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24")}})
	})
	i := New(Config{
		Tables: tables, Node: "e1", Cluster: func() string { return "east" }, Tunnel: "fairlead0", Log: slog.New(slog.DiscardHandler),
		Plugin: cni.Config{PluginPath: plugin, BinDir: dir + "/bin", ConfDir: dir + "/conf", StateDir: dir + "/state"},
	})
	nstest.New(t).Do(t, func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		// rules returns the handles of ours: other handles are other rules.
		rules := func() (handles []uint64) {
			all, err := conn.ListTables()
			if err != nil {
				t.Fatal(err)
			}
			for _, table := range all {
				chains, err := conn.ListChainsOfTableFamily(table.Family)
				if err != nil {
					t.Fatal(err)
				}
				for _, chain := range chains {
					list, err := conn.GetRules(table, chain)
					if err != nil {
						t.Fatal(err)
					}
					for _, r := range list {
						handles = append(handles, r.Handle)
					}
				}
			}
			return handles
		}
		if err := i.once(); err != nil {
			return err
		}
		before := rules()
		if err := i.once(); err != nil {
			return err
		}
		if again := rules(); fmt.Sprint(again) != fmt.Sprint(before) || len(before) == 0 {
			t.Errorf("rules %v became %v though nothing changed", before, again)
		}
		for name, damage := range map[string]func(){
			"everything": conn.FlushRuleset,
			"the rules": func() {
				conn.FlushTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "fairlead-masquerade"})
			},
		} {
			damage()
			if err := conn.Flush(); err != nil {
				return fmt.Errorf("flush %s: %w", name, err)
			}
			if err := i.once(); err != nil {
				return err
			}
			if got := rules(); len(got) != len(before) {
				t.Errorf("%s flushed: %d rules of %d came back", name, len(got), len(before))
			}
		}
		return nil
	})
}

// Behind another CNI the plugin needs nothing of the node's record, and comes back when the other CNI writes its file anew.
func TestTheChainedPluginComesBack(t *testing.T) {
	dir := t.TempDir()
	plugin, list := filepath.Join(dir, "plugin"), filepath.Join(dir, "conf", "10-other.conflist")
	const text = `{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"bridge"}]}`
	i := New(Config{
		Tables: table.New(), Node: "e1", Cluster: func() string { return "east" }, Chained: true, Log: slog.New(slog.DiscardHandler),
		Plugin: cni.Config{PluginPath: plugin, BinDir: dir + "/bin", ConfDir: dir + "/conf", BPFDir: "/sys/fs/bpf/test"},
	})
	if err := os.WriteFile(plugin, []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := i.once(); !errors.Is(err, cni.ErrNotChainable) {
		t.Errorf("before the other CNI is there: %v", err)
	}
	if err := os.Mkdir(filepath.Dir(list), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := i.once(); err != nil {
			t.Fatal(err)
		}
		if raw, err := os.ReadFile(list); err != nil || !strings.Contains(string(raw), "/sys/fs/bpf/test") {
			t.Errorf("the list is %s, %v", raw, err)
		}
	}
}
