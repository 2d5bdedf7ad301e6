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
	"sync"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
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

	entries   *door[bpf.PolicyKey, bpf.PolicyEntry]
	subjects  *door[bpf.SubjectKey, bpf.Subject]
	addresses *door[netip.Addr, bpf.Remote]
	ranges    *door[netip.Prefix, bpf.Remote]
	peers     *door[uint16, bpf.Peer]
	frontends *door[table.Frontend, bpf.Service]
	slots     *door[bpf.SlotKey, bpf.Backend]
	ifaces    *door[uint32, bpf.Iface]
	locals    *door[netip.Addr, bpf.Local]
	hooks     *door[table.Hook, table.Attachment]
	routes    *door[netip.Prefix, kernelroutes.Route]
	tunnel    *door[kernelwg.Key, string]
	config    *door[string, bpf.Config]

	nodeAddresses []netip.Addr
}

func newKernel(node string) *kernel {
	return &kernel{
		node:      node,
		entries:   newDoor[bpf.PolicyKey, bpf.PolicyEntry]("policy"),
		subjects:  newDoor[bpf.SubjectKey, bpf.Subject]("subjects"),
		addresses: newDoor[netip.Addr, bpf.Remote]("ipcache"),
		ranges:    newDoor[netip.Prefix, bpf.Remote]("ranges"),
		peers:     newDoor[uint16, bpf.Peer]("peers"),
		frontends: newDoor[table.Frontend, bpf.Service]("services"),
		slots:     newDoor[bpf.SlotKey, bpf.Backend]("slots"),
		ifaces:    newDoor[uint32, bpf.Iface]("ifaces"),
		locals:    newDoor[netip.Addr, bpf.Local]("locals"),
		hooks:     newDoor[table.Hook, table.Attachment]("hooks"),
		routes:    newDoor[netip.Prefix, kernelroutes.Route]("routes"),
		tunnel:    newDoor[kernelwg.Key, string]("tunnel"),
		config:    newDoor[string, bpf.Config]("config"),
	}
}

// breakable is a door seen from a story.
type breakable interface {
	Name() string
	fail(times int)
	broken() bool
	takeCounts() (written, removed int)
	operations() int
}

func (k *kernel) doors() []breakable {
	return []breakable{
		k.entries, k.subjects, k.addresses, k.ranges, k.peers, k.frontends, k.slots, k.ifaces, k.locals, k.hooks,
		k.routes, k.tunnel, k.config,
	}
}

// agentDoors are the kernel as an agent gets it.
func (k *kernel) agentDoors() agent.Doors {
	return agent.Doors{
		Policy:        policy.Doors{Entries: k.entries, Subjects: k.subjects},
		Routes:        routes.Doors{Peers: k.peers, Ranges: k.ranges, Addresses: k.addresses},
		Endpoints:     endpoints.Doors{Ifaces: k.ifaces, Locals: k.locals, Hooks: k.hooks},
		Services:      services.Doors{Slots: k.slots, Frontends: k.frontends},
		Settings:      settingsDoor{k.config},
		Links:         nodeLinks{k},
		HostRoutes:    hostRoutes{k.routes},
		OpenWireGuard: func() (wireguard.Device, error) { return device{k}, nil },
		Mode:          "tcx",
	}
}

// forever is a fault that only heals when the story says so.
const forever = -1

var errBroken = errors.New("the kernel refused")

// door is one map.
type door[K, V comparable] struct {
	name string

	mu       sync.Mutex
	rows     map[K]V
	written  int
	removed  int
	total    int
	failures int
}

func newDoor[K, V comparable](name string) *door[K, V] {
	return &door[K, V]{name: name, rows: map[K]V{}}
}

func (d *door[K, V]) Name() string { return d.name }

// faulty says whether this operation is one of those that fail; the lock is held.
func (d *door[K, V]) faulty() bool {
	if d.failures > 0 {
		d.failures--
		return true
	}
	return d.failures == forever
}

func (d *door[K, V]) Update(_ context.Context, key K, value V) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.faulty() {
		return errBroken
	}
	d.rows[key] = value
	d.written++
	d.total++
	return nil
}

func (d *door[K, V]) Delete(_ context.Context, key K) error {
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

func (d *door[K, V]) Have(context.Context) (map[K]V, error) { return d.all(), nil }

func (d *door[K, V]) all() map[K]V {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.rows)
}

func (d *door[K, V]) get(key K) (V, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.rows[key]
	return v, ok
}

func (d *door[K, V]) fail(times int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures = times
}

func (d *door[K, V]) broken() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failures == forever
}

func (d *door[K, V]) takeCounts() (written, removed int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	written, removed = d.written, d.removed
	d.written, d.removed = 0, 0
	return written, removed
}

func (d *door[K, V]) operations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// settingsDoor is fl_config.
type settingsDoor struct{ d *door[string, bpf.Config] }

func (s settingsDoor) Settings() (bpf.Config, error) {
	cfg, _ := s.d.get("config")
	return cfg, nil
}

func (s settingsDoor) SetSettings(cfg bpf.Config) error {
	return s.d.Update(context.Background(), "config", cfg)
}

// hostRoutes is the node's routing table of ours.
type hostRoutes struct {
	d *door[netip.Prefix, kernelroutes.Route]
}

func (h hostRoutes) Replace(r kernelroutes.Route) error {
	return h.d.Update(context.Background(), r.Prefix, r)
}

func (h hostRoutes) Remove(p netip.Prefix) error { return h.d.Delete(context.Background(), p) }

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

// device is the node's WireGuard device: what it was told of each peer.
type device struct{ k *kernel }

// publicKey is a node's key; the same on each run, so that stories can be told twice.
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
	told := fmt.Sprintf("%s allowed %s", p.Endpoint, table.JoinPrefixes(p.AllowedIPs))
	if have, ok := d.k.tunnel.get(p.PublicKey); ok && have == told {
		return nil
	}
	return d.k.tunnel.Update(context.Background(), p.PublicKey, told)
}

func (d device) RemovePeer(key kernelwg.Key) error {
	if _, ok := d.k.tunnel.get(key); !ok {
		return nil
	}
	return d.k.tunnel.Delete(context.Background(), key)
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

func (n nodeLinks) Uplinks() ([]links.Uplink, error) {
	return []links.Uplink{{Index: uplinkIndex, Name: "eth0", MTU: 1500}}, nil
}

func (n nodeLinks) Watch(ctx context.Context, changed func()) error {
	changed()
	<-ctx.Done()
	return ctx.Err()
}
