// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

// confName sorts before the names that other CNIs usually choose.
const confName = "10-fairlead.conflist"

// Config of the installation on a node.
type Config struct {
	// PluginPath is the plugin's binary in the agent's image.
	PluginPath string
	// BinDir and ConfDir are the container runtime's folders, as mounted into
	// the agent's container.
	BinDir  string
	ConfDir string

	PodCIDRs      []netip.Prefix
	NodeAddresses []netip.Addr
	MTU           int
	// StateDir and BPFDir are paths of the node, since the runtime runs the
	// plugin there.
	StateDir string
	BPFDir   string
}

// Defaults of the agent's manifest.
const (
	DefaultBinDir  = "/host/opt/cni/bin"
	DefaultConfDir = "/host/etc/cni/net.d"
)

// DefaultPluginPath is beside the program that asks: wherever an image puts
// the agent, it puts the plugin too.
var DefaultPluginPath = func() string {
	exe, err := os.Executable()
	if err != nil {
		return "/" + PluginName
	}
	return filepath.Join(filepath.Dir(exe), PluginName)
}()

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *string
		value string
	}{
		{&c.PluginPath, DefaultPluginPath}, {&c.BinDir, DefaultBinDir},
		{&c.ConfDir, DefaultConfDir}, {&c.StateDir, DefaultStateDir},
		{&c.BPFDir, DefaultBPFDir},
	} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	return c
}

// Install puts the binary and then the configuration into place, each at
// once. Whatever is right already is not written, so it may be called often.
// The configuration makes the kubelet call the node's network ready: it is
// only written when the node's pod CIDRs are known.
func Install(cfg Config) error {
	cfg = cfg.withDefaults()
	if len(cfg.PodCIDRs) == 0 {
		return errors.New("installing the CNI plugin: the node has no podCIDRs (does kube-controller-manager run with --allocate-node-cidrs?)")
	}
	if err := installBinary(cfg); err != nil {
		return err
	}
	conf, err := confList(cfg)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(cfg.ConfDir, confName), bytes.NewReader(conf), 0o600); err != nil {
		return fmt.Errorf("installing the CNI configuration: %w", err)
	}
	return nil
}

func installBinary(cfg Config) error {
	binary, err := os.Open(cfg.PluginPath)
	if err != nil {
		return fmt.Errorf("installing the CNI plugin: %w", err)
	}
	defer binary.Close()
	if err := replace(filepath.Join(cfg.BinDir, PluginName), binary, 0o755); err != nil {
		return fmt.Errorf("installing the CNI plugin: %w", err)
	}
	return nil
}

// Uninstall takes the configuration away, then the binary. Running pods keep
// their interfaces; their end still needs the binary, so call it when the
// node has no pods of this network any more.
func Uninstall(cfg Config) error {
	cfg = cfg.withDefaults()
	for _, path := range []string{filepath.Join(cfg.ConfDir, confName), filepath.Join(cfg.BinDir, PluginName)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("uninstalling the CNI plugin: %w", err)
		}
	}
	return nil
}

// confList writes the network configuration. It speaks CNI 1.0 and offers 1.1:
// a runtime that knows only 1.0 would refuse a 1.1 alone.
func confList(cfg Config) ([]byte, error) {
	cidrs := make([]netip.Prefix, 0, len(cfg.PodCIDRs))
	for _, p := range cfg.PodCIDRs {
		cidrs = append(cidrs, p.Masked())
	}
	plugins := []map[string]any{{
		"type":          PluginName,
		"podCIDRs":      cidrs,
		"nodeAddresses": cfg.NodeAddresses,
		"mtu":           cfg.MTU,
		"stateDir":      cfg.StateDir,
		"bpfDir":        cfg.BPFDir,
	}}
	// hostPort is the reference plugin's work, where the node has it.
	if _, err := os.Stat(filepath.Join(cfg.BinDir, "portmap")); err == nil {
		plugins = append(plugins, map[string]any{
			"type": "portmap", "snat": true,
			"capabilities": map[string]bool{"portMappings": true},
		})
	}
	raw, err := json.MarshalIndent(map[string]any{
		"cniVersion":  "1.0.0",
		"cniVersions": []string{"1.0.0", "1.1.0"},
		"name":        NetworkName,
		"plugins":     plugins,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the CNI configuration: %w", err)
	}
	return append(raw, '\n'), nil
}

// replace writes a file by rename, since the runtime may be reading or running
// the one that is there.
func replace(path string, content io.ReadSeeker, mode fs.FileMode) error {
	if same(path, content) {
		return nil
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// The name's first character keeps runtimes from reading an unfinished
	// configuration; they only look at .conf, .conflist and .json.
	tmp, err := os.CreateTemp(filepath.Dir(path), ".fairlead-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = io.Copy(tmp, content)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// same compares piece by piece: the agent looks often, and the binary is big.
func same(path string, content io.Reader) bool {
	have, err := os.Open(path)
	if err != nil {
		return false
	}
	defer have.Close()
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(content, a)
		m, err2 := io.ReadFull(have, b)
		if !bytes.Equal(a[:n], b[:m]) {
			return false
		}
		if err != nil || err2 != nil {
			return ended(err) && ended(err2)
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// Installed tells whether the configuration of this network is in place.
func Installed(cfg Config) bool {
	entries, err := os.ReadDir(cfg.withDefaults().ConfDir)
	return err == nil && slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == confName })
}
