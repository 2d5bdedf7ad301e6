// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// devices are a node's devices in memory.
type devices struct {
	mu    sync.Mutex
	pods  map[netip.Addr]int // address → interface
	ports bool               // the interfaces are a bridge's
	gone  map[int]bool
	asked int
}

func (d *devices) HostSide(a netip.Addr) (links.Link, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	index, ok := d.pods[a]
	if !ok {
		return links.Link{}, fmt.Errorf("%w: nobody answers for %s", links.ErrNotFound, a)
	}
	l := links.Link{Index: index, Name: fmt.Sprintf("veth%d", index), PodMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(index)}, HostMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}}
	if d.ports {
		l.Bridge = 5
	}
	return l, nil
}

func (d *devices) Interfaces() (map[uint32]bool, error) {
	out := map[uint32]bool{2: true}
	for _, i := range d.pods {
		out[uint32(i)] = !d.gone[i]
	}
	return out, nil
}

func (d *devices) LocalAddresses() ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("10.11.0.11")}, nil
}

func (d *devices) Uplinks([]netip.Prefix) ([]links.Uplink, error) {
	return []links.Uplink{{Index: 2, Name: "eth0", MTU: 1500}, {Index: 3, Name: "tun9", L3: true}}, nil
}

func (d *devices) Watch(context.Context, func()) error { return nil }

type bench struct {
	t       *testing.T
	tables  *table.Tables
	devices *devices
	finder  *Finder
	setting *table.Owned[string, table.Setting]
	pods    *table.Owned[string, table.Pod]
	now     time.Time
}

func setup(t *testing.T) *bench {
	t.Helper()
	tables := table.New()
	b := &bench{t: t, tables: tables, devices: &devices{pods: map[netip.Addr]int{}, gone: map[int]bool{}}, now: time.Unix(0, 0)}
	b.finder = NewFinder(FinderConfig{Tables: tables, Links: b.devices, Changed: func() {}, Log: slog.New(slog.DiscardHandler)})
	w := tables.ForPlan()
	b.setting, b.pods = table.NewOwned(w.Settings), table.NewOwned(w.Pods)
	return b
}

func (b *bench) want(encryption bool, pods map[string]table.Pod) {
	b.t.Helper()
	b.tables.Write(func(txn *table.Txn) {
		b.setting.Set(txn, "test", map[string]table.Setting{"config": {Encryption: encryption}})
		b.pods.Set(txn, "test", pods)
	})
}

func (b *bench) round() time.Time {
	b.t.Helper()
	_, retry := b.finder.Round(context.Background(), b.now, true)
	return retry
}

func (b *bench) status(key string) table.State {
	row, ok := b.tables.Pods.Get(key)
	if !ok {
		b.t.Fatalf("pod %s has no row", key)
	}
	return row.Status.State
}

var (
	four = netip.MustParseAddr("10.14.0.5")
	six  = netip.MustParseAddr("fd00:14::5")
	xw   = map[string]table.Pod{"default/xwing": {Endpoint: &record.Endpoint{Namespace: "default", Name: "xwing", Addresses: []netip.Addr{four, six}, Identity: 65800}}}
)

func TestAPodIsFoundByAnyOfItsAddresses(t *testing.T) {
	b := setup(t)
	b.devices.pods[six] = 7 // IPv4 does not answer yet
	b.want(true, xw)
	b.round()
	iface, ok := b.tables.Ifaces.Get(7)
	if !ok || iface.Value.Identity != 65800 || iface.Value.Flags != bpf.IfaceIP4|bpf.IfaceIP6 ||
		iface.Value.IP4 != four.As4() || iface.Value.IP6 != six.As16() || iface.Value.PodMAC[5] != 7 {
		t.Errorf("iface = %+v", iface)
	}
	for _, a := range []netip.Addr{four, six} {
		if l, ok := b.tables.Locals.Get(a); !ok || l.Value.Ifindex != 7 {
			t.Errorf("local %s = %+v", a, l)
		}
	}
	if _, ok := b.tables.Hooks.Get(table.Hook{Role: table.RolePod, Ifindex: 7}); !ok {
		t.Error("no hook for the pod's interface")
	}
	if s := b.status("default/xwing"); s != table.Done {
		t.Errorf("status = %s", s)
	}
	if !b.finder.Synced() {
		t.Error("not synced though all is found")
	}
}

// Who has a hardware address is known of pods behind a bridge, as long as they are there.
func TestHardwareAddressesBehindABridge(t *testing.T) {
	b := setup(t)
	b.devices.pods[four] = 7
	addr := netip.MustParseAddr("fe80::ff:fe00:7")
	b.want(true, xw)
	b.round()
	if _, ok := b.tables.Locals.Get(addr); ok {
		t.Error("a pod behind no bridge has a row for its hardware address")
	}
	b = setup(t)
	b.devices.pods[four], b.devices.ports = 7, true
	b.want(true, xw)
	b.round()
	if l, ok := b.tables.Locals.Get(addr); !ok || l.Value.Ifindex != 7 {
		t.Errorf("local %s = %+v", addr, l)
	}
	if i, _ := b.tables.Ifaces.Get(7); i.Value.Flags&bpf.IfaceBridged == 0 {
		t.Errorf("iface = %+v", i)
	}
	b.want(true, nil)
	b.round()
	if _, ok := b.tables.Locals.Get(addr); ok {
		t.Error("the row outlived the pod")
	}
}

func TestAPodThatIsNotThereYetIsAskedForAgain(t *testing.T) {
	b := setup(t)
	b.want(true, xw)
	retry := b.round()
	if b.status("default/xwing") != table.Failed || retry.IsZero() || b.finder.Synced() {
		t.Errorf("status %s, retry %v, synced %t", b.status("default/xwing"), retry, b.finder.Synced())
	}
	asked := b.devices.asked
	b.round()
	if b.devices.asked != asked {
		t.Error("asked again before its time")
	}
	b.devices.pods[four] = 7
	b.now = retry
	b.round()
	if b.status("default/xwing") != table.Done || !b.finder.Synced() {
		t.Errorf("status %s, synced %t", b.status("default/xwing"), b.finder.Synced())
	}
}

// Taking the programs off a live interface would open it: a pod that is silent for once keeps its rows.
func TestASilentPodKeepsItsProgramsAGoneInterfaceDoesNot(t *testing.T) {
	b := setup(t)
	b.devices.pods[four] = 7
	b.want(true, xw)
	b.round()

	delete(b.devices.pods, four)
	b.devices.pods[netip.MustParseAddr("10.14.0.99")] = 7 // the interface is still there
	b.finder.forget()
	b.round()
	if _, ok := b.tables.Ifaces.Get(7); !ok || b.status("default/xwing") != table.Done {
		t.Errorf("a silent pod lost its rows: %s", b.status("default/xwing"))
	}

	// The sandbox was made anew: another interface.
	b.devices.pods = map[netip.Addr]int{four: 8}
	b.round()
	if _, ok := b.tables.Ifaces.Get(8); !ok {
		t.Error("the new interface was not found")
	}
	if _, ok := b.tables.Ifaces.Get(7); ok {
		t.Error("the gone interface still has a row")
	}
}

func (b *bench) hooked(index uint32) bool {
	_, ok := b.tables.Hooks.Get(table.Hook{Role: table.RolePod, Ifindex: index})
	return ok
}

// A record may go before the pod does, as with "kubectl delete --force": what still runs must not be free of policy. Nobody is
// behind its interface any more, so everything is dropped there.
func TestAPodWithoutARecordIsClosedUntilItsInterfaceGoes(t *testing.T) {
	b := setup(t)
	b.devices.pods[four] = 7
	b.want(true, xw)
	b.round()
	b.want(true, nil)
	for range 2 {
		b.round()
		if n := b.tables.Ifaces.Len() + b.tables.Locals.Len(); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		if !b.hooked(7) {
			t.Error("a live interface lost its programs")
		}
	}
	b.devices.gone[7] = true
	b.round()
	if b.hooked(7) {
		t.Error("the hook is left without an interface")
	}
}

// A StatefulSet's pod comes back under its name: both interfaces have programs as long as both are there.
func TestAnotherPodOfTheSameName(t *testing.T) {
	b := setup(t)
	b.devices.pods[four] = 7
	b.want(true, xw)
	b.round()
	next := netip.MustParseAddr("10.14.0.6")
	b.want(true, map[string]table.Pod{"default/xwing": {Endpoint: &record.Endpoint{Namespace: "default", Name: "xwing", Addresses: []netip.Addr{next}, Identity: 65801}}})
	retry := b.round()
	if _, ok := b.tables.Ifaces.Get(7); ok && b.status("default/xwing") == table.Done {
		t.Error("the former pod's interface counts as the new one's")
	}
	b.devices.pods[next] = 8
	b.now = retry
	b.round()
	if row, _ := b.tables.Ifaces.Get(8); row.Value.Identity != 65801 || !b.hooked(7) || !b.hooked(8) {
		t.Errorf("identity %d, former interface hooked: %t, new one: %t", row.Value.Identity, b.hooked(7), b.hooked(8))
	}
	if _, ok := b.tables.Ifaces.Get(7); ok {
		t.Error("the former pod's interface still has a row")
	}
}

// Pods that don't answer must not keep a new pod without its programs.
func TestSilentPodsDelayNobody(t *testing.T) {
	b := setup(t)
	silent := make(chan struct{})
	defer close(silent)
	b.finder.asks.hostSide = func(a netip.Addr) (links.Link, error) {
		if a != four {
			<-silent
		}
		return b.devices.HostSide(a)
	}
	pods := map[string]table.Pod{}
	for n := range lookups - 1 {
		addr := netip.AddrFrom4([4]byte{10, 15, 0, byte(n)})
		pods[addr.String()] = table.Pod{Endpoint: &record.Endpoint{Namespace: "a", Name: addr.String(), Addresses: []netip.Addr{addr}, Identity: 65800}}
	}
	b.want(true, maps.Clone(pods))
	b.round()
	if b.status("10.15.0.1") != table.Pending || b.finder.Looked() || b.finder.Synced() {
		t.Errorf("%s; looked %t, synced %t: nobody knows yet", b.status("10.15.0.1"), b.finder.Looked(), b.finder.Synced())
	}
	b.devices.pods[four] = 7
	maps.Copy(pods, xw)
	b.want(true, pods)
	b.round()
	if !b.hooked(7) || b.status("default/xwing") != table.Done {
		t.Errorf("hooked %t, %s", b.hooked(7), b.status("default/xwing"))
	}
}

// An address that a new pod got while the former one's record is still there.
func TestAReusedAddressIsTheNewPods(t *testing.T) {
	former := table.Pod{Endpoint: &record.Endpoint{Namespace: "a", Name: "former", Addresses: []netip.Addr{four}, Identity: 65800}}
	newer := table.Pod{Endpoint: &record.Endpoint{Namespace: "b", Name: "newer", Addresses: []netip.Addr{four}, Identity: 65900}}
	for range 20 { // maps have no order
		b := setup(t)
		b.devices.pods[four] = 7
		b.want(true, map[string]table.Pod{"a/former": former})
		b.round()
		b.devices.pods, b.devices.gone = map[netip.Addr]int{four: 8}, map[int]bool{7: true}
		b.want(true, map[string]table.Pod{"a/former": former, "b/newer": newer})
		b.round()
		if row, _ := b.tables.Ifaces.Get(8); row.Value.Identity != 65900 || b.status("a/former") != table.Failed || b.status("b/newer") != table.Done {
			t.Fatalf("identity %d; former %s, newer %s", row.Value.Identity, b.status("a/former"), b.status("b/newer"))
		}
	}
	// After a restart nobody knows who was there first: nobody is let through until one record goes.
	b := setup(t)
	b.devices.pods[four] = 8
	b.want(true, map[string]table.Pod{"a/former": former, "b/newer": newer})
	b.round()
	if row, ok := b.tables.Ifaces.Get(8); ok || !b.hooked(8) || b.status("a/former") != table.Failed || b.status("b/newer") != table.Failed {
		t.Errorf("row %+v; hooked %t; former %s, newer %s", row, b.hooked(8), b.status("a/former"), b.status("b/newer"))
	}
	b.want(true, map[string]table.Pod{"b/newer": newer})
	b.round()
	if row, _ := b.tables.Ifaces.Get(8); row.Value.Identity != 65900 || b.status("b/newer") != table.Done {
		t.Errorf("identity %d; newer %s", row.Value.Identity, b.status("b/newer"))
	}
}

func TestTheNodeItself(t *testing.T) {
	b := setup(t)
	b.want(true, nil)
	b.round()
	host, ok := b.tables.Addresses.Get(netip.MustParseAddr("10.11.0.11"))
	if !ok || host.Value.Identity != bpf.IdentityHost || host.Value.Flags != bpf.RemoteHost {
		t.Errorf("own address = %+v", host)
	}
	uplink := table.Hook{Role: table.RoleUplink, Ifindex: 2}
	if _, ok := b.tables.Hooks.Get(uplink); !ok {
		t.Error("the uplink is not guarded")
	}
	if _, ok := b.tables.Hooks.Get(table.Hook{Role: table.RoleUplink, Ifindex: 3}); ok {
		t.Error("a device without Ethernet frames got the uplink's program")
	}
	b.want(false, nil)
	b.round()
	if _, ok := b.tables.Hooks.Get(uplink); ok {
		t.Error("the uplink is guarded though nothing is encrypted")
	}
}

// A device that came after the last look is not gone: the CNI plugin may have closed it, and it must stay so.
func TestADeviceThatCameSinceTheLastLookIsNotGone(t *testing.T) {
	b := setup(t)
	b.devices.pods[four], b.devices.pods[six] = 7, 8
	b.want(true, xw)
	b.round()
	b.devices.gone[7] = true
	b.devices.pods[netip.MustParseAddr("10.14.0.9")] = 9
	for ifindex, want := range map[uint32]bool{7: false, 8: false, 9: false, 10: true} {
		if got := b.finder.Gone(ifindex); got != want {
			t.Errorf("interface %d is gone: %t, want %t", ifindex, got, want)
		}
	}
	b.round()
	if !b.finder.Gone(7) {
		t.Error("interface 7 went before the last look, and counts as there")
	}
}
