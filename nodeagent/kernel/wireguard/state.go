// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package wireguard

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

const (
	keyFile      = "private.key"
	stateFile    = "peers.json"
	stateVersion = 1
)

// ErrCorrupt marks a file of ours that can't be understood.
var ErrCorrupt = errors.New("the file is damaged")

// Key is a WireGuard key, public unless said otherwise. Its text is base64.
type Key [32]byte

// ParseKey reads a key's base64 text.
func ParseKey(text string) (Key, error) {
	k, err := wgtypes.ParseKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("parsing a WireGuard key: %w", err)
	}
	return Key(k), nil
}

func (k Key) String() string { return wgtypes.Key(k).String() }

// MarshalText writes base64.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads base64.
func (k *Key) UnmarshalText(text []byte) error {
	parsed, err := ParseKey(string(text))
	*k = parsed
	return err
}

func (k Key) compare(o Key) int { return bytes.Compare(k[:], o[:]) }

// State is what the userspace process needs besides the key to carry on alone.
type State struct {
	Version          int    `json:"version"`
	ListenPort       int    `json:"listenPort"`
	MTU              int    `json:"mtu"`
	KeepaliveSeconds int    `json:"keepaliveSeconds,omitempty"`
	Peers            []Peer `json:"peers"`
}

// LoadKey reads the node's private key; an error that wraps fs.ErrNotExist
// says that there is none yet.
func LoadKey(dir string) (Key, error) {
	path := filepath.Join(dir, keyFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return Key{}, fmt.Errorf("reading the node's WireGuard key: %w", err)
	}
	key, err := ParseKey(strings.TrimSpace(string(text)))
	if err != nil {
		// Making a new one would cut this node off from everyone without a
		// word; whoever damaged it shall decide.
		return Key{}, fmt.Errorf("%w: %s holds no WireGuard key; remove it to get a new one: %w", ErrCorrupt, path, err)
	}
	return key, nil
}

// LoadOrCreateKey returns the node's private key and makes it the first time.
func LoadOrCreateKey(dir string) (Key, error) {
	key, err := LoadKey(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	fresh, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return Key{}, fmt.Errorf("making the node's WireGuard key: %w", err)
	}
	if err := writeFile(dir, keyFile, []byte(fresh.String()+"\n")); err != nil {
		return Key{}, err
	}
	return Key(fresh), nil
}

// LoadState reads the saved peers. None saved yet is an empty state.
func LoadState(dir string) (State, error) {
	path := filepath.Join(dir, stateFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return State{Version: stateVersion}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("reading the saved WireGuard peers: %w", err)
	}
	return parseState(path, raw)
}

func parseState(path string, raw []byte) (State, error) {
	var s State
	if err := json.Unmarshal(raw, &s); err != nil {
		return State{}, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	if s.Version != stateVersion {
		return State{}, fmt.Errorf("%w: %s is of version %d, this program reads %d", ErrCorrupt, path, s.Version, stateVersion)
	}
	if s.ListenPort < 0 || s.ListenPort > 65535 || s.KeepaliveSeconds < 0 || s.KeepaliveSeconds > 65535 {
		return State{}, fmt.Errorf("%w: %s has a listenPort or keepaliveSeconds outside 0 to 65535", ErrCorrupt, path)
	}
	for i, p := range s.Peers {
		if p.PublicKey == (Key{}) {
			return State{}, fmt.Errorf("%w: %s: peer %d has no key", ErrCorrupt, path, i)
		}
		for _, prefix := range p.AllowedIPs {
			if !prefix.IsValid() {
				return State{}, fmt.Errorf("%w: %s: peer %s has an invalid prefix", ErrCorrupt, path, p.PublicKey)
			}
		}
	}
	return s, nil
}

// SaveState replaces the saved peers at once; a reader sees the old or the new.
func SaveState(dir string, s State) error {
	s.Version = stateVersion
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return fmt.Errorf("encoding the WireGuard peers: %w", err)
	}
	return writeFile(dir, stateFile, append(raw, '\n'))
}

// writeFile is atomic and lasting, and nobody but root may read the result.
func writeFile(dir, name string, content []byte) (err error) {
	path := filepath.Join(dir, name)
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, "."+name+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
