// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/routes"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/services"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	kernelroutes "github.com/fairlead-mesh/fairlead/nodeagent/kernel/routes"
	kernelwg "github.com/fairlead-mesh/fairlead/nodeagent/kernel/wireguard"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// kernel is a node's kernel in memory. It survives its agents, as maps and devices do.
type kernel struct {
	node string

	sets       *fakeMap[uint32, uint64]
	classes    *fakeMap[uint32, bpf.ClassSets]
	identities *fakeMap[uint32, bpf.IdentityClass]
	groups     *fakeMap[bpf.GroupKey, bpf.GroupChunk]
	subjects   *fakeMap[bpf.SubjectKey, bpf.Subject] // both banks
	addresses  *fakeMap[netip.Addr, bpf.Remote]
	epochs     *fakeMap[uint32, uint32] // of addresses
	ranges     *fakeMap[netip.Prefix, bpf.Remote]
	blocks     *fakeMap[netip.Prefix, uint32]
	guards     *fakeMap[netip.Prefix, uint32]
	peers      *fakeMap[uint16, bpf.Peer]
	frontends  *fakeMap[table.Frontend, bpf.Service]
	slots      *fakeMap[bpf.SlotKey, bpf.Backend]
	ifaces     *fakeMap[uint32, bpf.Iface]
	locals     *fakeMap[netip.Addr, bpf.Local]
	hooks      *fakeMap[table.Hook, table.Attachment]
	routes     *fakeMap[netip.Prefix, kernelroutes.Route]
	tunnel     *fakeMap[kernelwg.Key, string]
	config     *fakeMap[string, bpf.Config]

	nodeAddresses []netip.Addr
	settled       atomic.Bool // the agent that runs had its maps pinned
}

func newKernel(node string) *kernel {
	return &kernel{
		node:       node,
		sets:       newMap[uint32, uint64]("sets"),
		classes:    newMap[uint32, bpf.ClassSets]("classes"),
		identities: newMap[uint32, bpf.IdentityClass]("identities"),
		groups:     newMap[bpf.GroupKey, bpf.GroupChunk]("groups"),
		subjects:   newMap[bpf.SubjectKey, bpf.Subject]("subjects"),
		addresses:  newMap[netip.Addr, bpf.Remote]("ipcache"),
		epochs:     newMap[uint32, uint32]("address-epochs"),
		ranges:     newMap[netip.Prefix, bpf.Remote]("ranges"),
		blocks:     newMap[netip.Prefix, uint32]("blocks"),
		guards:     newMap[netip.Prefix, uint32]("guards"),
		peers:      newMap[uint16, bpf.Peer]("peers"),
		frontends:  newMap[table.Frontend, bpf.Service]("services"),
		slots:      newMap[bpf.SlotKey, bpf.Backend]("slots"),
		ifaces:     newMap[uint32, bpf.Iface]("ifaces"),
		locals:     newMap[netip.Addr, bpf.Local]("locals"),
		hooks:      newMap[table.Hook, table.Attachment]("hooks"),
		routes:     newMap[netip.Prefix, kernelroutes.Route]("routes"),
		tunnel:     newMap[kernelwg.Key, string]("tunnel"),
		config:     newMap[string, bpf.Config]("config"),
	}
}

// breakable is a map seen from a story.
type breakable interface {
	Name() string
	fail(times int)
	fill()
	heal()
	broken() bool
	takeCounts() (written, removed int)
	operations() int
}

// maps are everything that can be written to.
func (k *kernel) maps() []breakable {
	return []breakable{
		k.sets, k.classes, k.identities, k.blocks, k.groups, k.subjects, k.addresses, k.epochs, k.ranges, k.guards, k.peers, k.frontends,
		k.slots, k.ifaces, k.locals, k.hooks, k.routes, k.tunnel, k.config,
	}
}

// drivers are the kernel as an agent gets it.
func (k *kernel) drivers() agent.Drivers {
	return agent.Drivers{
		Policy: policy.Driver{
			Sets: k.sets, Classes: k.classes, Members: k.identities, Blocks: k.blocks, Groups: k.groups, Subjects: k.subjects, Epochs: config{k.config},
		},
		Routes:        routes.Driver{Peers: k.peers, Ranges: k.ranges, Guards: k.guards, Addresses: k.addresses, AddressEpochs: k.epochs},
		Endpoints:     endpoints.Driver{Ifaces: k.ifaces, Locals: k.locals, Hooks: k.hooks},
		Services:      services.Driver{Slots: k.slots, Frontends: k.frontends},
		Settings:      config{k.config},
		Links:         nodeLinks{k},
		HostRoutes:    hostRoutes{k.routes},
		OpenWireGuard: func() (wireguard.Device, error) { return device{k}, nil },
		Mode:          "tcx",
		Settle: func() error {
			k.settled.Store(true)
			return nil
		},
	}
}

// forever is a fault that only heals when the story says so.
const forever = -1

var (
	errBroken = errors.New("the kernel refused")
	errFull   = errors.New("the map is full")
)

// fakeMap is one map.
type fakeMap[K, V comparable] struct {
	name string

	mu       sync.Mutex
	rows     map[K]V
	written  int
	removed  int
	total    int
	failures int
	full     bool // has no room for more rows
}

func newMap[K, V comparable](name string) *fakeMap[K, V] {
	return &fakeMap[K, V]{name: name, rows: map[K]V{}}
}

func (d *fakeMap[K, V]) Name() string { return d.name }

// faulty says whether this operation is one of those that fail; the lock is held.
func (d *fakeMap[K, V]) faulty() bool {
	if d.failures > 0 {
		d.failures--
		return true
	}
	return d.failures == forever
}

func (d *fakeMap[K, V]) Update(_ context.Context, keys []K, values []V) []error {
	return apply.Each(len(keys), func(i int) error { return d.put(keys[i], values[i]) })
}

func (d *fakeMap[K, V]) Delete(_ context.Context, keys []K) []error {
	return apply.Each(len(keys), func(i int) error { return d.remove(keys[i]) })
}

func (d *fakeMap[K, V]) Have(_ context.Context, visit func([]K, []V)) error {
	for key, value := range d.all() {
		visit([]K{key}, []V{value})
	}
	return nil
}

func (d *fakeMap[K, V]) put(key K, value V) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faulty() {
		return errBroken
	}
	if _, has := d.rows[key]; d.full && !has {
		return errFull
	}
	d.rows[key] = value
	d.written++
	d.total++
	return nil
}

func (d *fakeMap[K, V]) remove(key K) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faulty() {
		return errBroken
	}
	delete(d.rows, key)
	d.removed++
	d.total++
	return nil
}

func (d *fakeMap[K, V]) all() map[K]V {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.rows)
}

func (d *fakeMap[K, V]) get(key K) (V, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.rows[key]
	return v, ok
}

func (d *fakeMap[K, V]) fail(times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = times
}

func (d *fakeMap[K, V]) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
}

func (d *fakeMap[K, V]) heal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures, d.full = 0, false
}

func (d *fakeMap[K, V]) broken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failures == forever || d.full
}

func (d *fakeMap[K, V]) takeCounts() (written, removed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	written, removed = d.written, d.removed
	d.written, d.removed = 0, 0
	return written, removed
}

func (d *fakeMap[K, V]) operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// config is fl_config: settings and epochs.
type config struct{ d *fakeMap[string, bpf.Config] }

func (c config) Settings() (bpf.Config, error) {
	cfg, _ := c.d.get("config")
	return cfg, nil
}

func (c config) SetSettings(cfg bpf.Config) error { return c.d.put("config", cfg) }

func (c config) Epochs() (policy, full uint32, err error) {
	cfg, err := c.Settings()
	return cfg.PolicyEpoch, cfg.FullEpoch, err
}

func (c config) SetEpochs(policy, full uint32) error {
	cfg, err := c.Settings()
	if err != nil {
		return err
	}
	cfg.PolicyEpoch, cfg.FullEpoch = policy, full
	return c.SetSettings(cfg)
}

// Fence has nobody to wait for: stories read the maps when everything is at rest.
func (config) Fence() error { return nil }

// hostRoutes is the node's routing table of ours.
type hostRoutes struct {
	d *fakeMap[netip.Prefix, kernelroutes.Route]
}

func (h hostRoutes) Ensure() error { return nil }

func (h hostRoutes) Replace(r kernelroutes.Route) error {
	return h.d.put(r.Prefix, r)
}

func (h hostRoutes) Remove(p netip.Prefix) error { return h.d.remove(p) }

func (h hostRoutes) List() ([]kernelroutes.Route, error) {
	return slices.SortedFunc(maps.Values(h.d.all()), func(a, b kernelroutes.Route) int {
		return cmp.Or(a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	}), nil
}

// The node's devices.
const (
	tunnelIndex = 5
	uplinkIndex = 2
	firstPod    = 100
	tunnelMTU   = 1420
)

// device is the node's WireGuard device: what was set of each peer.
type device struct{ k *kernel }

// publicKey is a node's key; the same on each run, so that a story has the same outcome twice.
func publicKey(node string) kernelwg.Key {
	return kernelwg.Key(sha256.Sum256([]byte("key of " + node)))
}

func (d device) PublicKey() kernelwg.Key               { return publicKey(d.k.node) }
func (d device) ListenPort() int                       { return kernelwg.DefaultPort }
func (d device) Implementation() string                { return "in-memory WireGuard" }
func (d device) Device() (ifindex, mtu int, err error) { return tunnelIndex, tunnelMTU, nil }
func (d device) Save() error                           { return nil }

// SetPeer counts only what changes something, as the real device does.
func (d device) SetPeer(p kernelwg.Peer) error {
	var allowed []string
	for _, prefix := range p.AllowedIPs {
		allowed = append(allowed, prefix.String())
	}
	set := fmt.Sprintf("%s allowed %s", p.Endpoint, strings.Join(allowed, ","))
	if have, ok := d.k.tunnel.get(p.PublicKey); ok && have == set {
		return nil
	}
	return d.k.tunnel.put(p.PublicKey, set)
}

func (d device) RemovePeer(key kernelwg.Key) error {
	if _, ok := d.k.tunnel.get(key); !ok {
		return nil
	}
	return d.k.tunnel.remove(key)
}

func (d device) Peers() ([]kernelwg.Status, error) {
	var out []kernelwg.Status
	for key := range d.k.tunnel.all() {
		out = append(out, kernelwg.Status{Peer: kernelwg.Peer{PublicKey: key}})
	}
	return out, nil
}

// nodeLinks are the node's devices: each pod has an interface whose number is made from its address.
type nodeLinks struct{ k *kernel }

func podIndex(a netip.Addr) int {
	b := a.AsSlice()
	return firstPod + int(b[len(b)-1])
}

func (n nodeLinks) HostSide(a netip.Addr) (links.Link, error) {
	b := a.AsSlice()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, b[len(b)-1]}
	return links.Link{Index: podIndex(a), Name: fmt.Sprintf("veth%d", podIndex(a)), PodMAC: mac, HostMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}, nil
}

func (n nodeLinks) Interfaces() (map[uint32]bool, error) {
	all := map[uint32]bool{tunnelIndex: true, uplinkIndex: true}
	for i := range uint32(256) {
		all[firstPod+i] = true
	}
	return all, nil
}

func (n nodeLinks) LocalAddresses() ([]netip.Addr, error) { return n.k.nodeAddresses, nil }

func (n nodeLinks) Uplinks([]netip.Prefix) ([]links.Uplink, error) {
	return []links.Uplink{{Index: uplinkIndex, Name: "eth0", MTU: 1500}}, nil
}

func (n nodeLinks) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}
