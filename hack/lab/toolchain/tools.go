// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package toolchain builds the third-party programs a lab runs, from sources
// pinned by the modules in hack/toolchain, into a cache outside the work tree.
// A tool's place in the cache is named by its version and by a hash of all
// that goes into it, so a change of a pin builds anew and a second checkout
// shares what is there.
package toolchain

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Tool is one module of hack/toolchain.
type Tool struct {
	Name    string // its directory
	Version string
	// Packages to build; none means the module's own main package.
	Packages []string
	// Programs maps the names the lab uses to the names the build makes.
	Programs map[string]string
	Tags     string
	LDFlags  string
	CGO      bool
}

// KubernetesVersion is what the lab's clusters run.
const KubernetesVersion = "v1.37.2"

const (
	etcdVersion       = "v3.7.3"
	containerdVersion = "v2.4.2"
	runcVersion       = "v1.5.2"
	cniVersion        = "v1.9.1"
	corednsVersion    = "v1.15.0"
)

// CNIPlugins are the reference plugins that every node has.
var CNIPlugins = []string{"loopback", "bridge", "host-local", "portmap"}

// Tools lists everything a lab needs, the longest build first.
func Tools() []Tool {
	const (
		version    = "k8s.io/component-base/version."
		containerd = "github.com/containerd/containerd/v2/"
		plugins    = "github.com/containernetworking/plugins/plugins/"
	)
	return []Tool{
		{
			Name: "hyperkube", Version: KubernetesVersion,
			Programs: same("hyperkube", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
			Tags:     "selinux,grpcnotrace",
			LDFlags:  "-X " + version + "gitVersion=" + KubernetesVersion + " -X " + version + "gitMajor=1 -X " + version + "gitMinor=37",
		},
		{
			Name: "etcd", Version: etcdVersion,
			Packages: []string{"go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3"},
			Programs: map[string]string{"etcd": "server", "etcdctl": "etcdctl"},
		},
		{
			Name: "containerd", Version: containerdVersion,
			Packages: []string{containerd + "cmd/containerd", containerd + "cmd/containerd-shim-runc-v2", containerd + "cmd/ctr"},
			Programs: each("containerd", "containerd-shim-runc-v2", "ctr"),
			Tags:     "no_btrfs,no_devmapper,no_zfs,no_aufs",
			LDFlags:  "-X " + containerd + "version.Version=" + containerdVersion,
		},
		{
			Name: "runc", Version: runcVersion,
			Packages: []string{"github.com/opencontainers/runc"},
			Programs: each("runc"),
			Tags:     "seccomp",
			LDFlags:  "-X main.version=" + strings.TrimPrefix(runcVersion, "v"),
			CGO:      true,
		},
		{
			Name: "cniplugins", Version: cniVersion,
			Packages: []string{plugins + "main/loopback", plugins + "main/bridge", plugins + "ipam/host-local", plugins + "meta/portmap"},
			Programs: each(CNIPlugins...),
		},
		{
			Name: "coredns", Version: corednsVersion,
			Packages: []string{"github.com/coredns/coredns"},
			Programs: each("coredns"),
		},
	}
}

// same maps several program names to the one binary that serves them all.
func same(binary string, programs ...string) map[string]string {
	m := map[string]string{}
	for _, p := range programs {
		m[p] = binary
	}
	return m
}

func each(programs ...string) map[string]string {
	m := map[string]string{}
	for _, p := range programs {
		m[p] = p
	}
	return m
}

// Cache is a directory of built tools.
type Cache struct {
	dir    string
	source string // hack/toolchain
	keys   map[string]string
}

// Open opens the user's cache of the tools pinned in source.
func Open(source string) (*Cache, error) {
	dir, err := CacheDir()
	if err != nil {
		return nil, err
	}
	c := &Cache{dir: filepath.Join(dir, "tools"), source: source, keys: map[string]string{}}
	for _, t := range Tools() {
		if c.keys[t.Name], err = t.key(source); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// CacheDir is where everything is kept that is fetched or built once.
func CacheDir() (string, error) {
	if dir := os.Getenv("FAIRLEAD_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory: %w (set FAIRLEAD_CACHE)", err)
	}
	return filepath.Join(dir, "fairlead"), nil
}

// key names what goes into the tool: version and a hash of its inputs.
func (t Tool) key(source string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, t.Packages, t.Tags, t.LDFlags, t.CGO)
	files, err := filepath.Glob(filepath.Join(source, t.Name, "*"))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("no module of tool %s in %s", t.Name, source)
	}
	slices.Sort(files)
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("read module of tool %s: %w", t.Name, err)
		}
		fmt.Fprintln(h, filepath.Base(file), len(content))
		h.Write(content)
	}
	return fmt.Sprintf("%s-%s-%s", t.Name, t.Version, hex.EncodeToString(h.Sum(nil))[:10]), nil
}

func (c *Cache) home(t Tool) string { return filepath.Join(c.dir, c.keys[t.Name]) }

// Has tells whether the tool is built.
func (c *Cache) Has(t Tool) bool {
	_, err := os.Stat(c.home(t))
	return err == nil
}

// Program is the path of a built program. It panics on a name that no tool
// makes, which only a mistake in the lab itself can ask for.
func (c *Cache) Program(name string) string {
	for _, t := range Tools() {
		if _, ok := t.Programs[name]; ok {
			return filepath.Join(c.home(t), name)
		}
	}
	panic("toolchain: no tool makes " + name)
}

// Dirs lists the directories of all tools, as PATH wants them.
func (c *Cache) Dirs() string {
	var dirs []string
	for _, t := range Tools() {
		dirs = append(dirs, c.home(t))
	}
	return strings.Join(dirs, ":")
}
