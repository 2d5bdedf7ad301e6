// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package cni_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
)

const foreign = `{
  "name": "cbr0",  "cniVersion": "0.3.1",
  "plugins": [
    { "type": "flannel", "delegate": {"hairpinMode": true, "plugins": [1, 2]} },
    { "type": "portmap", "capabilities": {"portMappings": true} }
  ]
}
`

func write(t *testing.T, cfg cni.Config, name, text string) string {
	t.Helper()
	if err := os.MkdirAll(cfg.ConfDir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.ConfDir, name)
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestChainPutsThePluginBehindTheOthers(t *testing.T) {
	cfg := config(t)
	path := write(t, cfg, "20-flannel.conflist", foreign)
	later := write(t, cfg, "30-other.conflist", foreign)
	if err := cni.Chain(cfg); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.ConfListFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Plugins) != 3 || list.Plugins[0].Network.Type != "flannel" || list.Plugins[2].Network.Type != cni.PluginName {
		t.Fatalf("the list is now\n%s", list.Bytes)
	}
	conf, err := cni.ParseConf(list.Plugins[2].Bytes)
	if err != nil || !conf.Chained || conf.BPFDir != cfg.BPFDir {
		t.Errorf("the plugin reads %+v, %v", conf, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the file's mode: %v, %v", info, err)
	}
	if info, err := os.Stat(filepath.Join(cfg.BinDir, cni.PluginName)); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the binary: %v, %v", info, err)
	}
	if read(t, later) != foreign {
		t.Error("a configuration that the runtime doesn't use was changed")
	}

	before := stamps(t, cfg)
	if err := cni.Chain(cfg); err != nil {
		t.Fatal(err)
	}
	if after := stamps(t, cfg); after != before {
		t.Errorf("files were written again: %s, then %s", before, after)
	}

	cfg.BPFDir = "/sys/fs/bpf/elsewhere"
	if err := cni.Chain(cfg); err != nil {
		t.Fatal(err)
	}
	if text := read(t, path); strings.Count(text, cni.PluginName) != 1 || !strings.Contains(text, cfg.BPFDir) {
		t.Errorf("with another directory the list is\n%s", text)
	}

	// The other CNI writes its configuration anew.
	write(t, cfg, "20-flannel.conflist", foreign)
	if err := cni.Chain(cfg); err != nil || !strings.Contains(read(t, path), cni.PluginName) {
		t.Errorf("after the other CNI wrote: %v\n%s", err, read(t, path))
	}
	for range 2 {
		if err := cni.Unchain(cfg); err != nil || read(t, path) != foreign {
			t.Errorf("after the undoing: %v\n%s", err, read(t, path))
		}
	}
}

// Whoever manages the file may write the plugin's part too.
func TestAPluginThatIsChainedAlreadyIsLeftAlone(t *testing.T) {
	const byHand = `{"plugins": [{"type": "bridge"}, {"type": "fairlead-cni", "chained": true}, {"type": "portmap"}]}`
	cfg := config(t)
	cfg.BPFDir = cni.DefaultBPFDir
	path := write(t, cfg, "10-x.conflist", byHand)
	if err := cni.Chain(cfg); err != nil || read(t, path) != byHand {
		t.Errorf("it became %s, %v", read(t, path), err)
	}
	cfg.BPFDir = "/sys/fs/bpf/elsewhere"
	if err := cni.Chain(cfg); err != nil || strings.Count(read(t, path), "fairlead-cni") != 1 || !strings.Contains(read(t, path), cfg.BPFDir) {
		t.Errorf("with another directory it became %s, %v", read(t, path), err)
	}
	first := write(t, cfg, "10-x.conflist", `{"plugins": [{"type": "fairlead-cni", "chained": true, "bpfDir": "/sys/fs/bpf/elsewhere"}, {"type": "bridge"}]}`)
	if err := cni.Chain(cfg); err != nil || strings.Index(read(t, first), "fairlead-cni") < strings.Index(read(t, first), "bridge") {
		t.Errorf("a plugin in front of the one that connects: %s, %v", read(t, first), err)
	}
}

func TestUnchainFindsThePluginAnywhere(t *testing.T) {
	const ours, chained, other = `{"type":"fairlead-cni","podCIDRs":["10.1.0.0/24"]}`, `{"type":"fairlead-cni","chained":true}`, `{"type":"bridge"}`
	for text, want := range map[string]string{
		`{"plugins":[` + other + ` , ` + chained + `, ` + ours + `]}`:                       `{"plugins":[` + other + `, ` + ours + `]}`,
		`{"plugins":[ ` + chained + ` , ` + other + `]}`:                                    `{"plugins":[ ` + other + `]}`,
		`{"plugins":[` + chained + `,` + chained + `,` + other + `,` + chained + `],"x":1}`: `{"plugins":[` + other + `],"x":1}`,
		`{"plugins":[` + chained + `]}`:                                                     `{"plugins":[]}`,
		`{"name":"x"}`:                                                                      `{"name":"x"}`,
	} {
		cfg := config(t)
		path := write(t, cfg, "10-x.conflist", text)
		if err := cni.Unchain(cfg); err != nil || read(t, path) != want {
			t.Errorf("%s\nbecame\n%s\nwant\n%s\n%v", text, read(t, path), want, err)
		}
	}
	if err := cni.Unchain(config(t)); err != nil {
		t.Errorf("where there is no directory: %v", err)
	}
}

func TestWhatCantBeChainedToIsLeftAlone(t *testing.T) {
	for name, c := range map[string]struct{ file, text, want string }{
		"nothing":            {"", "", "none in"},
		"a single plugin's":  {"10-x.conf", `{"type":"bridge"}`, "single plugin's"},
		"our own network":    {"10-fairlead.conflist", `{"plugins":[{"type":"fairlead-cni"}]}`, "own network"},
		"no plugins":         {"10-x.conflist", `{"plugins":[]}`, "no plugins"},
		"no list":            {"10-x.conflist", `[1]`, "should be"},
		"half a file":        {"10-x.conflist", `{"plugins":[{"type":"bridge"}`, "unexpected EOF"},
		"plugins of a kind":  {"10-x.conflist", `{"plugins":["bridge"]}`, "cannot unmarshal"},
		"plugins that clash": {"10-x.conflist", `{"plugins":[{"type":"a"}],"plugins":[{"type":"b"}]}`, "twice"},
	} {
		cfg := config(t)
		if c.file != "" {
			write(t, cfg, c.file, c.text)
		}
		err := cni.Chain(cfg)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if c.file != "" && read(t, filepath.Join(cfg.ConfDir, c.file)) != c.text {
			t.Errorf("%s: the file was changed", name)
		}
	}
	cfg := config(t)
	if err := os.Symlink(write(t, cfg, "x.txt", foreign), filepath.Join(cfg.ConfDir, "10-x.conflist")); err != nil {
		t.Fatal(err)
	}
	if err := cni.Chain(cfg); !errors.Is(err, cni.ErrNotChainable) {
		t.Errorf("a link to a file elsewhere: %v", err)
	}
}

// Whatever a configuration holds, the undoing gives back what was there.
func FuzzChain(f *testing.F) {
	f.Add([]byte(foreign))
	f.Add([]byte(`{"plugins":[{"type":"fairlead-cni","chained":true},{"type":"bridge"}]}`))
	f.Add([]byte(`{"plugins":[{"type":"bridge"}] , "plug\u0069ns": 1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte("chained")) {
			t.Skip("what was there before is not kept")
		}
		cfg := config(t)
		path := write(t, cfg, "10-x.conflist", string(raw))
		if err := cni.Chain(cfg); err != nil {
			if read(t, path) != string(raw) {
				t.Errorf("refused with %v, but changed to %s", err, read(t, path))
			}
			return
		}
		if err := cni.Unchain(cfg); err != nil || read(t, path) != string(raw) {
			t.Errorf("%s became %s, %v", raw, read(t, path), err)
		}
	})
}
