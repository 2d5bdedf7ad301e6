// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// The cast of every packet test, in both families. The pod under test sits
// behind the loopback interface of the test's machine: PROG_TEST_RUN only
// takes interfaces that exist, and no packet is really sent.
const (
	podIfindex    = 1
	tunnelIfindex = 77
	tunnelMTU     = 1400

	podIdentity     = 1000 // the pod under test
	friendIdentity  = 3000 // a pod of the same cluster, reached by the CNI
	remoteIdentity  = 2000 // a pod of another cluster, behind the tunnel
	blockIdentity   = 9000 // an ipBlock
	remotePeer      = 5    // remote's node
	defaultRule     = 4242
	firstEpoch      = 100
	tcActPass       = int32(-1)
	tcActDrop       = int32(2)
	tcActRedirect   = int32(7)
	ethHeaderLength = 14
)

type cast struct {
	family       uint8
	pod          netip.Addr // identity podIdentity, behind podIfindex
	friend       netip.Addr
	remote       netip.Addr
	remoteNobody netip.Addr // in the other cluster's range, but no pod
	host         netip.Addr // this node
	world        netip.Addr
	block        netip.Addr // in a CIDR that policies name
	unvouched    netip.Addr // in this cluster's range, and nobody vouches for it
	service      netip.Addr // in the service range
	other        netip.Addr // some other local pod's address
}

var (
	cast4 = cast{
		family: 2,
		pod:    netip.MustParseAddr("10.1.0.10"), friend: netip.MustParseAddr("10.1.9.9"),
		remote: netip.MustParseAddr("10.2.0.20"), remoteNobody: netip.MustParseAddr("10.2.0.99"),
		host: netip.MustParseAddr("10.1.0.1"), world: netip.MustParseAddr("1.1.1.1"), unvouched: netip.MustParseAddr("10.3.0.7"),
		block: netip.MustParseAddr("192.0.2.7"), service: netip.MustParseAddr("10.96.0.10"),
		other: netip.MustParseAddr("10.1.0.11"),
	}
	cast6 = cast{
		family: 10,
		pod:    netip.MustParseAddr("fd00:1::10"), friend: netip.MustParseAddr("fd00:1:9::9"),
		remote: netip.MustParseAddr("fd00:2::20"), remoteNobody: netip.MustParseAddr("fd00:2::99"),
		host: netip.MustParseAddr("fd00:1::1"), world: netip.MustParseAddr("2606:4700::1111"), unvouched: netip.MustParseAddr("fd00:3::7"),
		block: netip.MustParseAddr("2001:db8::7"), service: netip.MustParseAddr("fd00:96::10"),
		other: netip.MustParseAddr("fd00:1::11"),
	}
	podMAC  = [6]byte{2, 0, 0, 0, 0, 0x10}
	hostMAC = [6]byte{2, 0, 0, 0, 0, 0x01}
)

// eachFamily runs a story once over IPv4 and once over IPv6, each with fresh maps.
func eachFamily(t *testing.T, story func(t *testing.T, f *fixture, c cast)) {
	t.Helper()
	t.Run("ip4", func(t *testing.T) { story(t, newFixture(t), cast4) })
	t.Run("ip6", func(t *testing.T) { story(t, newFixture(t), cast6) })
}

// fixture is a node's datapath with the cast in its maps and no policy.
type fixture struct {
	t      *testing.T
	maps   *Maps
	progs  *Programs
	tunnel *ebpf.Program // fl_tunnel_ingress, see loadTunnelForTest
	cfg    Config

	policies  map[Direction]*testPolicy // the pod's, see harness_policy_test.go
	lastGroup uint32

	baseline map[uint32]uint64 // counters when the test began
}

// datapath is what loading yields; tests share one, see newFixture.
type datapath struct {
	maps   *Maps
	progs  *Programs
	tunnel *ebpf.Program
}

func loadDatapath() (*datapath, error) {
	small := map[string]uint32{
		MapCT4: 4096, MapCT6: 4096, MapFrags: 256, MapIpcache4: 4096, MapIpcache6: 4096,
		MapCIDR4: 1024, MapCIDR6: 1024, MapGuard4: 64, MapGuard6: 64, MapSlots: 1024,
		MapSubjects: 4096, MapGroups: 4096, MapIdentities: 4096, MapClasses: 1024,
		MapServices4: 1024, MapServices6: 1024, MapSockRev: 1024, MapAffinity: 1024,
		MapRuleStats: 1024,
	}
	m, _, _, err := OpenMaps("", small)
	if err != nil {
		return nil, err
	}
	p, err := LoadPrograms(m)
	if err != nil {
		return nil, err
	}
	tunnel, err := loadTunnelForTest(m)
	return &datapath{maps: m, progs: p, tunnel: tunnel}, err
}

// The datapaths of one node, or of two that talk. The verifier's work is done
// once for all tests; none of them runs beside another.
var datapaths = [2]func() (*datapath, error){
	sync.OnceValues(loadDatapath), sync.OnceValues(loadDatapath),
}

// newFixture clears the first node's datapath for a test.
func newFixture(t *testing.T) *fixture { return nodeFixture(t, 0) }

func nodeFixture(t *testing.T, node int) *fixture {
	t.Helper()
	d, err := datapaths[node]()
	if err != nil {
		t.Fatalf("%+v", err)
	}
	f := &fixture{t: t, maps: d.maps, progs: d.progs, tunnel: d.tunnel, baseline: map[uint32]uint64{}}
	f.clear()
	f.populate()
	f.baseline = f.metrics()
	return f
}

// clear empties every map that a test may have written.
func (f *fixture) clear() {
	f.t.Helper()
	f.events()
	for name, m := range f.maps.ByName() {
		switch m.Type() {
		case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie, ebpf.LRUCPUHash:
		case ebpf.Array, ebpf.PerCPUArray, ebpf.RingBuf, ebpf.SkStorage, ebpf.ArrayOfMaps:
			continue // read as differences, overwritten or drained
		default:
			f.t.Fatalf("don't know how to clear %s", name)
		}
		for {
			key := make([]byte, m.KeySize())
			if err := m.NextKey(nil, &key); errors.Is(err, ebpf.ErrKeyNotExist) {
				break
			} else if err != nil {
				f.t.Fatalf("clearing %s: %v", name, err)
			}
			f.must(m.Delete(key))
		}
	}
	clearRows[Denied](f, f.maps.Denied)
	clearRows[EventSeen](f, f.maps.EventSeen)
}

// clearRows empties an array that packets fill.
func clearRows[R any](f *fixture, m *ebpf.Map) {
	f.t.Helper()
	keys := make([]uint32, m.MaxEntries())
	for i := range keys {
		keys[i] = uint32(i)
	}
	_, err := m.BatchUpdate(keys, make([]R, len(keys)), nil)
	f.must(err)
}

// findRow looks for the only row of such an array that is wanted.
func findRow[R any](f *fixture, m *ebpf.Map, wanted func(R) bool) (index uint32, row R) {
	f.t.Helper()
	n := int(m.MaxEntries())
	keys, rows := make([]uint32, n), make([]R, n)
	var cursor ebpf.MapBatchCursor
	if _, err := m.BatchLookup(&cursor, keys, rows, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		f.t.Fatalf("reading %s: %v", m, err)
	}
	for i, r := range rows {
		if wanted(r) {
			return keys[i], r
		}
	}
	f.t.Fatalf("%s has no such row", m)
	return 0, row
}

// populate writes the cast.
func (f *fixture) populate() {
	m := f.maps
	f.t.Helper()
	f.configure(Config{PolicyEpoch: firstEpoch, TunnelIfindex: tunnelIfindex, TunnelMTU: tunnelMTU})
	f.must(m.Ifaces.Put(uint32(podIfindex), &Iface{
		Identity: podIdentity, Flags: IfaceIP4 | IfaceIP6,
		IP4: cast4.pod.As4(), IP6: cast6.pod.As16(), PodMAC: podMAC, HostMAC: hostMAC,
	}))
	f.must(m.Peers.Put(uint32(remotePeer), &Peer{Flags: PeerReady}))
	for _, c := range []cast{cast4, cast6} {
		f.address(c.pod, Remote{Identity: podIdentity})
		f.address(c.friend, Remote{Identity: friendIdentity})
		f.address(c.remote, Remote{Identity: remoteIdentity, Peer: remotePeer,
			Flags: RemoteTunnel | RemoteRequireTunnel})
		f.address(c.host, Remote{Identity: IdentityHost, Flags: RemoteHost})
		f.local(c.pod, Local{Ifindex: podIfindex, PodMAC: podMAC, HostMAC: hostMAC})
	}
	remoteRange := Remote{Flags: RemoteTunnel | RemoteRequireTunnel}
	f.cidr("10.2.0.0/16", remoteRange)
	f.cidr("fd00:2::/32", remoteRange)
	f.cidr("10.96.0.0/12", Remote{Flags: RemoteService})
	f.cidr("fd00:96::/112", Remote{Flags: RemoteService})
	f.cidr("10.3.0.0/16", Remote{Flags: RemoteUnvouched})
	f.cidr("fd00:3::/32", Remote{Flags: RemoteUnvouched})
	f.block("192.0.2.0/24", blockIdentity)
	f.block("2001:db8::/32", blockIdentity)
	f.guard("10.2.0.0/16", 1)
	f.guard("fd00:2::/32", 1)
	f.populatePolicy()
}

// loadTunnelForTest loads the tunnel hook as a lightweight-tunnel program: of
// the types PROG_TEST_RUN knows, that is the one whose packets start at the IP
// header, as they do on the tunnel device.
func loadTunnelForTest(m *Maps) (*ebpf.Program, error) {
	loaded := map[string]*ebpf.Program{}
	asLWT := func() (*ebpf.CollectionSpec, error) {
		spec, err := loadTunnelIngress()
		if err == nil {
			spec.Programs["fl_tunnel_ingress"].Type = ebpf.LWTXmit
			err = spec.Variables["fl_no_sockets"].Set(true) // that type can't look them up
		}
		return spec, err
	}
	err := loadObject(asLWT, m, nil, loaded)
	return loaded["fl_tunnel_ingress"], err
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) configure(cfg Config) {
	f.t.Helper()
	f.cfg = cfg
	f.must(f.maps.Config.Put(uint32(0), &cfg))
}

func (f *fixture) bumpEpoch() {
	f.t.Helper()
	f.cfg.PolicyEpoch++
	f.configure(f.cfg)
}

// address writes an address's row and raises its epoch.
func (f *fixture) address(a netip.Addr, r Remote) {
	f.t.Helper()
	if a.Is4() {
		f.must(f.maps.Ipcache4.Put(a.As4(), &r))
	} else {
		f.must(f.maps.Ipcache6.Put(a.As16(), &r))
	}
	f.raiseAddress(a)
}

func (f *fixture) local(a netip.Addr, l Local) {
	f.t.Helper()
	if a.Is4() {
		f.must(f.maps.Locals4.Put(a.As4(), &l))
		return
	}
	f.must(f.maps.Locals6.Put(a.As16(), &l))
}

// block gives a CIDR that policies name its identity.
func (f *fixture) block(prefix string, id uint32) {
	f.t.Helper()
	p := netip.MustParsePrefix(prefix)
	if p.Addr().Is4() {
		f.must(f.maps.Blocks4.Put(&CIDR4{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}, id))
	} else {
		f.must(f.maps.Blocks6.Put(&CIDR6{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}, id))
	}
}

func (f *fixture) cidr(s string, r Remote) {
	f.t.Helper()
	p := netip.MustParsePrefix(s)
	if p.Addr().Is4() {
		f.must(f.maps.CIDR4.Put(&CIDR4{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}, &r))
		return
	}
	f.must(f.maps.CIDR6.Put(&CIDR6{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}, &r))
}

// guard forbids a range on the uplinks in the clear, or exempts it (0).
func (f *fixture) guard(s string, guarded uint32) {
	f.t.Helper()
	p := netip.MustParsePrefix(s)
	if p.Addr().Is4() {
		f.must(f.maps.Guard4.Put(&CIDR4{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As4()}, guarded))
		return
	}
	f.must(f.maps.Guard6.Put(&CIDR6{Prefixlen: uint32(p.Bits()), Addr: p.Addr().As16()}, guarded))
}

// skb is struct __sk_buff, as PROG_TEST_RUN takes and returns it.
type skb struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto uint32
	Priority, IngressIfindex, Ifindex, TCIndex                                  uint32
	CB                                                                          [5]uint32
	Hash, TCClassid, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4         uint32
	RemoteIP6, LocalIP6                                                         [4]uint32
	RemotePort, LocalPort, DataMeta                                             uint32
	FlowKeys, Tstamp                                                            uint64
	WireLen, GSOSegs                                                            uint32
	Sk                                                                          uint64
	GSOSize, TstampType                                                         uint32
	Hwtstamp                                                                    uint64
}

// result is what came out of a program.
type result struct {
	action int32
	data   []byte
	mark   uint32
	delta  map[uint32]uint64 // counters that moved, by metric index
}

// run sends one packet through a program.
func (f *fixture) run(prog *ebpf.Program, data []byte, in skb) result {
	f.t.Helper()
	before := f.metrics()
	if in.Ifindex == 0 {
		in.Ifindex = podIfindex
	}
	var out skb
	opts := &ebpf.RunOptions{
		Data: data, DataOut: make([]byte, len(data)+256), Context: in, ContextOut: &out, Repeat: 1,
	}
	ret, err := prog.Run(opts)
	if err != nil {
		f.t.Fatalf("running %s: %v", prog, err)
	}
	delta := map[uint32]uint64{}
	for i, n := range f.metrics() {
		if n != before[i] {
			delta[i] = n - before[i]
		}
	}
	return result{action: int32(ret), data: opts.DataOut, mark: out.Mark, delta: delta}
}

func (f *fixture) egress(data []byte) result { return f.run(f.progs.PodEgress, data, skb{}) }

func (f *fixture) ingress(data []byte) result { return f.run(f.progs.PodIngress, data, skb{}) }

func (f *fixture) ingressFromTunnel(data []byte) result {
	return f.run(f.progs.PodIngress, data, skb{Mark: MarkTunnel})
}

func (f *fixture) metrics() map[uint32]uint64 {
	f.t.Helper()
	cpus, err := ebpf.PossibleCPU()
	f.must(err)
	n := int(f.maps.Metrics.MaxEntries())
	indices, perCPU := make([]uint32, n), make([]Counter, n*cpus)
	var cursor ebpf.MapBatchCursor
	got, err := f.maps.Metrics.BatchLookup(&cursor, indices, perCPU, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || got != n {
		f.t.Fatalf("reading %d of %d counters: %v", got, n, err)
	}
	out := map[uint32]uint64{}
	for i, c := range perCPU {
		out[indices[i/cpus]] += c.Packets
	}
	for i, n := range out {
		if out[i] = n - f.baseline[i]; out[i] == 0 {
			delete(out, i)
		}
	}
	return out
}

// expect checks the action, and that exactly this fate was counted, once.
func (r result) expect(t *testing.T, what string, action int32, hook Hook, reason Reason) {
	t.Helper()
	if r.action != action {
		t.Errorf("%s: action %d, want %d", what, r.action, action)
	}
	want := MetricIndex(reason, hook)
	if r.delta[want] != 1 || len(r.delta) != 1 {
		var got []string
		for i, n := range r.delta {
			gr, gh := MetricOf(i)
			for range n {
				got = append(got, gh.String()+"/"+gr.String())
			}
		}
		t.Errorf("%s: counted %v, want one %s/%s", what, got, hook, reason)
	}
}

func (r result) passes(t *testing.T, what string, hook Hook, reason Reason) {
	t.Helper()
	r.expect(t, what, tcActPass, hook, reason)
}

func (r result) drops(t *testing.T, what string, hook Hook, reason Reason) {
	t.Helper()
	r.expect(t, what, tcActDrop, hook, reason)
}

func (r result) tunnels(t *testing.T, what string) {
	t.Helper()
	r.expect(t, what, tcActRedirect, HookPodEgress, ReasonTunneled)
}

// events drains the ring buffer.
func (f *fixture) events() []Event {
	f.t.Helper()
	rd, err := ringbuf.NewReader(f.maps.Events)
	f.must(err)
	defer rd.Close()
	rd.SetDeadline(time.Unix(1, 0)) // long past: return what is there
	var out []Event
	for {
		rec, err := rd.Read()
		if err != nil {
			return out
		}
		var e Event
		f.must(binary.Read(bytes.NewReader(rec.RawSample), binary.LittleEndian, &e))
		out = append(out, e)
	}
}

// ctKey is the key of a flow of the pod's, in the maps of its family.
type ctKey struct {
	c                 cast
	peer              netip.Addr
	podPort, peerPort uint16
	proto             uint8
}

// asks is which way the flow's questions go: of a ping, from where the id is to where the type is.
func (k ctKey) asks() Direction {
	switch {
	case k.proto != 1 && k.proto != 58:
		return DirNone
	case k.peerPort == k.c.pingPort():
		return DirEgress
	}
	return DirIngress
}

func (f *fixture) ctMap(k ctKey) (*ebpf.Map, any) {
	if k.peer.Is4() {
		return f.maps.CT4, &CT4Key{Pod: k.c.pod.As4(), Peer: k.peer.As4(),
			PodPort: k.podPort, PeerPort: k.peerPort, Proto: k.proto, Asks: k.asks()}
	}
	return f.maps.CT6, &CT6Key{Pod: k.c.pod.As16(), Peer: k.peer.As16(),
		PodPort: k.podPort, PeerPort: k.peerPort, Proto: k.proto, Asks: k.asks()}
}

func (f *fixture) flow(k ctKey) (CTEntry, bool) {
	f.t.Helper()
	m, key := f.ctMap(k)
	var e CTEntry
	err := m.Lookup(key, &e)
	return e, err == nil
}

// age makes a flow look as if it was last seen so long ago.
func (f *fixture) age(k ctKey, d time.Duration) {
	f.t.Helper()
	m, key := f.ctMap(k)
	var e CTEntry
	f.must(m.Lookup(key, &e))
	e.LastSeen -= uint32(d.Nanoseconds() >> 30)
	f.must(m.Put(key, &e))
}
