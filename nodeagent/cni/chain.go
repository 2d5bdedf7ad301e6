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
	"os"
	"path/filepath"
	"slices"
)

// ErrNotChainable says that there is no configuration behind whose plugins
// ours could be put.
var ErrNotChainable = errors.New("no configuration to chain the CNI plugin to")

// Chain installs the binary and puts the plugin at the end of the
// configuration that the runtime uses, by one rename. Whatever is right
// already is not written, so it may be called often: the other CNI may write
// its configuration anew.
func Chain(cfg Config) error {
	cfg = cfg.withDefaults()
	path, err := inUse(cfg.ConfDir)
	if err != nil {
		return err
	}
	entry, err := json.Marshal(map[string]any{"type": PluginName, "chained": true, "bpfDir": cfg.BPFDir})
	if err != nil {
		return fmt.Errorf("encoding the plugin's configuration: %w", err)
	}
	if err := installBinary(cfg); err != nil {
		return err
	}
	return edit(path, func(raw []byte) ([]byte, error) {
		have, err := parseList(raw)
		if err != nil {
			return nil, err
		}
		if have.chainedOnce(cfg.BPFDir) {
			return raw, nil
		}
		without, err := unchained(raw)
		if err != nil {
			return nil, err
		}
		list, err := parseList(without)
		if err != nil {
			return nil, err
		}
		if len(list.plugins) == 0 {
			return nil, errors.New("it has no plugins")
		}
		at := list.plugins[len(list.plugins)-1].end
		return slices.Concat(without[:at], []byte(",\n    "), entry, without[at:]), nil
	})
}

// Unchain takes the plugin out of all configurations, which are then as they
// were. The binary stays: pods that started with it end with it.
func Unchain(cfg Config) error {
	cfg = cfg.withDefaults()
	files, err := configurations(cfg.ConfDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range files {
		if filepath.Ext(path) == ".conflist" && filepath.Base(path) != confName {
			errs = append(errs, edit(path, unchained))
		}
	}
	return errors.Join(errs...)
}

// inUse is the file that the runtime takes: the first by name.
func inUse(dir string) (string, error) {
	files, err := configurations(dir)
	if err != nil {
		return "", err
	}
	if len(files) == 0 {
		return "", fmt.Errorf("%w: there is none in %s yet", ErrNotChainable, dir)
	}
	first := files[0]
	info, err := os.Lstat(first)
	switch {
	case err != nil:
		return "", fmt.Errorf("looking at %s: %w", first, err)
	case filepath.Base(first) == confName:
		return "", fmt.Errorf("%w: %s is of Fairlead's own network; remove it when no pod of that network is left", ErrNotChainable, first)
	case filepath.Ext(first) != ".conflist":
		return "", fmt.Errorf("%w: %s is a single plugin's; make it a .conflist with a list of plugins", ErrNotChainable, first)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%w: %s is no regular file", ErrNotChainable, first)
	}
	return first, nil
}

// configurations are those that a runtime looks at, in its order.
func configurations(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing CNI configurations: %w", err)
	}
	var out []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".conf" || ext == ".conflist" || ext == ".json") {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out, nil
}

// edit writes a file anew if change changes it.
func edit(path string, change func([]byte) ([]byte, error)) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // just went
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(path)
	}
	if err != nil {
		return fmt.Errorf("reading the CNI configuration: %w", err)
	}
	next, err := change(raw)
	if err != nil {
		return fmt.Errorf("editing the CNI configuration %s: %w", path, err)
	}
	if err := replace(path, bytes.NewReader(next), info.Mode().Perm()); err != nil {
		return fmt.Errorf("writing the CNI configuration: %w", err)
	}
	return nil
}

// unchained is a configuration without our plugin.
func unchained(raw []byte) ([]byte, error) {
	for {
		list, err := parseList(raw)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(list.plugins, func(p span) bool { return p.ours })
		if i < 0 {
			return raw, nil
		}
		from, to := list.plugins[i].start, list.plugins[i].end
		switch {
		case i > 0: // with the comma before it
			from = list.plugins[i-1].end
		case len(list.plugins) > 1: // with the comma behind it
			to = list.plugins[1].start
		}
		raw = slices.Concat(raw[:from], raw[to:])
	}
}

// list says where in a configuration's text its plugins are, so that the rest
// stays as its owner wrote it.
type list struct{ plugins []span }

type span struct {
	start, end int
	ours       bool
	bpfDir     string
}

// chainedOnce says that our plugin is there as it should be, whoever wrote it.
func (l list) chainedOnce(bpfDir string) bool {
	at := -1
	for i, p := range l.plugins {
		if p.ours && (at >= 0 || i == 0 || p.bpfDir != bpfDir) {
			return false
		}
		if p.ours {
			at = i
		}
	}
	return at > 0
}

func parseList(raw []byte) (list, error) {
	var out list
	dec := json.NewDecoder(bytes.NewReader(raw))
	if err := delim(dec, '{'); err != nil {
		return out, err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return out, err
		}
		if key != "plugins" {
			var other json.RawMessage
			if err := dec.Decode(&other); err != nil {
				return out, err
			}
			continue
		}
		if out.plugins != nil {
			return out, errors.New("it has plugins twice")
		}
		if out.plugins, err = spans(dec); err != nil {
			return out, err
		}
	}
	return out, delim(dec, '}')
}

func spans(dec *json.Decoder) ([]span, error) {
	if err := delim(dec, '['); err != nil {
		return nil, err
	}
	out := []span{}
	for dec.More() {
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return nil, err
		}
		var is struct {
			Type    string `json:"type"`
			Chained bool   `json:"chained"`
			BPFDir  string `json:"bpfDir"`
		}
		if err := json.Unmarshal(raw, &is); err != nil {
			return nil, err
		}
		if is.BPFDir == "" {
			is.BPFDir = DefaultBPFDir
		}
		end := int(dec.InputOffset())
		out = append(out, span{
			start: end - len(raw), end: end, ours: is.Type == PluginName && is.Chained, bpfDir: is.BPFDir,
		})
	}
	return out, delim(dec, ']')
}

func delim(dec *json.Decoder, want json.Delim) error {
	got, err := dec.Token()
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%v where %v should be", got, want)
	}
	return nil
}
