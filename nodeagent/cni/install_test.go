// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package cni_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
)

func config(t *testing.T) cni.Config {
	t.Helper()
	dir := t.TempDir()
	plugin := filepath.Join(dir, "image", cni.PluginName)
	if err := os.MkdirAll(filepath.Dir(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(plugin, []byte("a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	return cni.Config{
		PluginPath: plugin, BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"),
		PodCIDRs:      []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		NodeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		StateDir:      "/var/lib/somewhere",
		BPFDir:        "/sys/fs/bpf/somewhere",
	}
}

func TestInstallWritesWhatARuntimeReads(t *testing.T) {
	cfg := config(t)
	if cni.Installed(cfg) {
		t.Error("installed before the installation")
	}
	if err := cni.Install(cfg); err != nil {
		t.Fatal(err)
	}
	files, err := libcni.ConfFiles(cfg.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil || len(files) != 1 || !cni.Installed(cfg) {
		t.Fatalf("the runtime finds %v, %v", files, err)
	}
	list, err := libcni.ConfListFromFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if list.Name != cni.NetworkName || len(list.Plugins) != 1 {
		t.Errorf("network %s with %d plugins", list.Name, len(list.Plugins))
	}
	conf, err := cni.ParseConf(list.Plugins[0].Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if conf.MTU != cni.DefaultMTU || len(conf.PodCIDRs) != 2 || conf.StateDir != cfg.StateDir || conf.BPFDir != cfg.BPFDir || conf.Chained || conf.NodeAddresses[0] != cfg.NodeAddresses[0] {
		t.Errorf("the plugin reads %+v", conf)
	}
	info, err := os.Stat(filepath.Join(cfg.BinDir, cni.PluginName))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the plugin's binary: %v, %v", info, err)
	}
	if err := cni.Uninstall(cfg); err != nil {
		t.Fatal(err)
	}
	if cni.Installed(cfg) || cni.Uninstall(cfg) != nil {
		t.Error("still installed, or uninstalling twice fails")
	}
}

func TestInstallAgainTouchesNothing(t *testing.T) {
	cfg := config(t)
	if err := cni.Install(cfg); err != nil {
		t.Fatal(err)
	}
	before := stamps(t, cfg)
	if err := cni.Install(cfg); err != nil {
		t.Fatal(err)
	}
	if after := stamps(t, cfg); after != before {
		t.Errorf("files were written again: %s, then %s", before, after)
	}
}

func stamps(t *testing.T, cfg cni.Config) string {
	t.Helper()
	var out []string
	for _, dir := range []string{cfg.BinDir, cfg.ConfDir} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e.Name()+info.ModTime().String())
		}
	}
	return strings.Join(out, " ")
}

func TestPortmapIsChainedWhereTheNodeHasIt(t *testing.T) {
	cfg := config(t)
	if err := os.MkdirAll(cfg.BinDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.BinDir, "portmap"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := cni.Install(cfg); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromFile(filepath.Join(cfg.ConfDir, "10-fairlead.conflist"))
	if err != nil || len(list.Plugins) != 2 || list.Plugins[1].Network.Type != "portmap" || !list.Plugins[1].Network.Capabilities["portMappings"] {
		t.Errorf("plugins %+v, %v", list, err)
	}
}

func TestInstallNeedsPodCIDRs(t *testing.T) {
	cfg := config(t)
	cfg.PodCIDRs = nil
	if err := cni.Install(cfg); err == nil || !strings.Contains(err.Error(), "podCIDRs") {
		t.Errorf("without podCIDRs: %v", err)
	}
	if cni.Installed(cfg) {
		t.Error("a configuration was written")
	}
}

func TestBadConfigurations(t *testing.T) {
	for text, want := range map[string]string{
		`{"podCIDRs":["10.1.0.1/24"]}`:         "no network prefix",
		`{"podCIDRs":["rubbish"]}`:             "parsing",
		`{"podCIDRs":[]}`:                      "no podCIDRs",
		`{"podCIDRs":["10.1.0.0/24"],"mtu":9}`: "outside",
		`{`:                                    "parsing",
		`{"chained":true,"podCIDRs":["10.1.0.0/24"]}`:        "it is chained",
		`{"podCIDRs":["10.1.0.0/24"],"bpfDir":"fairlead"}`:   "no absolute path",
		`{"chained":true,"bpfDir":"../sys/fs/bpf/fairlead"}`: "no absolute path",
		`{"chained":"yes"}`: "parsing",
	} {
		if _, err := cni.ParseConf([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestAChainedConfigurationNeedsNothing(t *testing.T) {
	conf, err := cni.ParseConf([]byte(`{"type":"fairlead-cni","chained":true}`))
	if err != nil || !conf.Chained || conf.BPFDir != cni.DefaultBPFDir {
		t.Errorf("got %+v, %v", conf, err)
	}
}

func FuzzParseConf(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","type":"fairlead-cni","chained":true,"bpfDir":"/sys/fs/bpf/fairlead"}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","type":"fairlead-cni","podCIDRs":["10.1.0.0/24","fd00:1::/64"],"mtu":1420}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		conf, err := cni.ParseConf(raw)
		if err == nil && (len(conf.PodCIDRs) == 0 == !conf.Chained || conf.StateDir == "" || conf.BPFDir == "") {
			t.Errorf("an incomplete configuration was accepted: %+v", conf)
		}
	})
}
