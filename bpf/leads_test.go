// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
)

// leadsTo makes an address and port of TCP a service with these backends. The zero address is a node port.
func (f *fixture) leadsTo(at netip.AddrPort, id uint32, flags uint32, backends ...netip.AddrPort) {
	f.t.Helper()
	clearRows[Denied](f, f.maps.Denied) // a tick goes by, with which what was denied is forgotten
	row := &Service{ID: id, Backends: uint32(len(backends)), Flags: flags}
	if at.Addr().Is4() {
		f.must(f.maps.Services4.Put(&Service4Key{Addr: at.Addr().As4(), Port: at.Port(), Proto: 6}, row))
	} else {
		f.must(f.maps.Services6.Put(&Service6Key{Addr: at.Addr().As16(), Port: at.Port(), Proto: 6}, row))
	}
	for slot, b := range backends {
		family := uint8(2)
		if b.Addr().Is6() {
			family = 10
		}
		f.must(f.maps.Slots.Put(&SlotKey{Service: id, Slot: uint32(slot)},
			&Backend{Addr: wide(b.Addr()), ID: uint32(slot + 1), Port: b.Port(), Family: family}))
	}
}

// A service's address that was not translated at the socket is judged by all that it leads to.
func TestServicesAreJudgedByWhatTheyLeadTo(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		sport := uint16(4000)
		try := func() result {
			sport++
			return f.egress(tcp(c.pod, sport, c.service, 443, "S").bytes(t))
		}
		allow := func(lines ...line) {
			f.policies[DirEgress].lines = lines
			f.publish(podIdentity, DirEgress)
			f.bumpEpoch()
		}
		friend, remote := netip.AddrPortFrom(c.friend, 8443), netip.AddrPortFrom(c.remote, 8443)
		at := netip.AddrPortFrom(c.service, 443)

		try().passes(t, "nothing is isolated", HookPodEgress, ReasonService)
		allow(line{peer: friendIdentity, verdict: VerdictDeny, rule: 1})
		try().drops(t, "could lead to somebody who is denied", HookPodEgress, ReasonPolicyDenied)
		f.egress(echo(c.pod, c.service, 1, false).bytes(t)).drops(t, "so does a ping", HookPodEgress, ReasonPolicyDenied)
		f.leadsTo(at, 7, 0, remote)
		try().passes(t, "leads to somebody else", HookPodEgress, ReasonService)
		f.leadsTo(at, 7, 0, remote, friend)
		try().drops(t, "leads to him too", HookPodEgress, ReasonPolicyDenied)

		f.isolate(DirEgress, 0)
		allow()
		try().drops(t, "isolated", HookPodEgress, ReasonDefaultDenied)
		f.egress(echo(c.pod, c.service, 2, false).bytes(t)).drops(t, "isolated, a ping", HookPodEgress, ReasonDefaultDenied)
		allow(line{peer: friendIdentity, proto: 6, from: 8443, rule: 2})
		try().drops(t, "one of two backends is allowed", HookPodEgress, ReasonDefaultDenied)
		f.leadsTo(at, 7, 0, friend)
		try().passes(t, "all backends are", HookPodEgress, ReasonService)
		allow(line{peer: friendIdentity, proto: 6, from: 443, rule: 3})
		try().drops(t, "the port is the backend's", HookPodEgress, ReasonDefaultDenied)
		f.leadsTo(at, 7, 0, netip.AddrPortFrom(c.block, 6443))
		allow(line{peer: blockIdentity, proto: 6, from: 6443, rule: 4})
		try().passes(t, "an address that a CIDR allows, as the API server's", HookPodEgress, ReasonService)
		f.leadsTo(at, 7, 0, netip.AddrPortFrom(c.host, 6443))
		try().passes(t, "the own node", HookPodEgress, ReasonService)

		f.leadsTo(at, 7, 0)
		try().drops(t, "nobody knows what it leads to", HookPodEgress, ReasonDefaultDenied)
		f.leadsTo(at, 7, 0, friend, friend)
		f.must(f.maps.Slots.Delete(&SlotKey{Service: 7, Slot: 1}))
		allow(line{peer: friendIdentity, rule: 5})
		try().drops(t, "a slot is missing", HookPodEgress, ReasonDefaultDenied)
		allow(line{rule: 6})
		try().passes(t, "everybody is allowed", HookPodEgress, ReasonService)
	})
}

// Node ports lead to backends at the addresses of this cluster's nodes, and nowhere else.
func TestNodePortsAreJudgedByWhatTheyLeadTo(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		node, foreign := c.world.Next(), c.world.Next().Next()
		f.address(node, Remote{Identity: IdentityWorld, Flags: RemoteNode})
		f.address(foreign, Remote{Identity: IdentityWorld, Peer: remotePeer, Flags: RemoteNode | RemoteTunnel | RemoteRequireTunnel})
		f.leadsTo(netip.AddrPortFrom(c.unspecified(), nodePort), 8, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 80))
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: IdentityWorld, rule: 1})
		f.bumpEpoch()
		for _, at := range []netip.Addr{c.host, node} {
			f.egress(tcp(c.pod, 4000, at, nodePort, "S").bytes(t)).drops(t, "leads to a pod that isn't allowed", HookPodEgress, ReasonDefaultDenied)
		}
		f.egress(tcp(c.pod, 4000, c.host, 22, "S").bytes(t)).passes(t, "another port of the node", HookPodEgress, ReasonHost)
		f.egress(tcp(c.pod, 4000, node, 22, "S").bytes(t)).passes(t, "another port of another node", HookPodEgress, ReasonForwarded)
		f.egress(tcp(c.pod, 4000, foreign, nodePort, "S").bytes(t)).tunnels(t, "the same port of another cluster's node")
		f.egress(tcp(c.pod, 4000, c.world, nodePort, "S").bytes(t)).passes(t, "the same port of no node", HookPodEgress, ReasonForwarded)
		f.rule(DirEgress, line{peer: friendIdentity, proto: 6, from: 80, rule: 2})
		f.bumpEpoch()
		for _, at := range []netip.Addr{c.host, node} {
			f.egress(tcp(c.pod, 4001, at, nodePort, "S").bytes(t)).passes(t, "leads to a pod that is", HookPodEgress, ReasonService)
		}
	})
}

func (c cast) loopback() netip.Addr {
	if c.family == 2 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

func (c cast) unspecified() netip.Addr {
	if c.family == 2 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// The node's host ports lead to its pods, at each of its addresses. Whether anything translates them isn't known: the node is
// judged as well.
func TestHostPortsAreJudgedByWhatTheyLeadTo(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		const hostPort = 8443
		bridge := c.host.Next().Next().Next()
		f.address(bridge, Remote{Identity: IdentityHost, Flags: RemoteHost})
		f.leadsTo(netip.AddrPortFrom(c.loopback(), hostPort), 8, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 80))
		f.isolate(DirEgress, 0)
		f.bumpEpoch()
		for _, at := range []netip.Addr{c.host, bridge} {
			f.egress(tcp(c.pod, 4000, at, hostPort, "S").bytes(t)).drops(t, "leads to a pod that isn't allowed", HookPodEgress, ReasonDefaultDenied)
			f.egress(tcp(c.pod, 4000, at, 22, "S").bytes(t)).passes(t, "the node's own port", HookPodEgress, ReasonHost)
		}
		f.egress(tcp(c.pod, 4000, c.world, hostPort, "S").bytes(t)).drops(t, "the same port of no node", HookPodEgress, ReasonDefaultDenied)
		f.rule(DirEgress, line{peer: friendIdentity, proto: 6, from: 80, rule: 2})
		f.bumpEpoch()
		for _, at := range []netip.Addr{c.host, bridge} {
			f.egress(tcp(c.pod, 4001, at, hostPort, "S").bytes(t)).passes(t, "leads to a pod that is", HookPodEgress, ReasonService)
		}
		f.leadsTo(netip.AddrPortFrom(c.loopback(), hostPort), 8, ServicePolicyOnly)
		f.egress(tcp(c.pod, 4002, c.host, hostPort, "S").bytes(t)).drops(t, "leads nobody knows where", HookPodEgress, ReasonDefaultDenied)
	})
}

// A pod that claims a port of the node doesn't open the node to others.
func TestHostPortsDontHideTheNode(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.leadsTo(netip.AddrPortFrom(c.loopback(), 10250), 9, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 80))
		f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10250, verdict: VerdictDeny, rule: 2})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.host, 10250, "S").bytes(t)).drops(t, "kubelet denied by name", HookPodEgress, ReasonPolicyDenied)
	})
}

// Which of a node port and a host port with one number translates first, nobody here knows.
func TestNodePortBesideHostPort(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: friendIdentity, rule: 2})
		for i, to := range [][2]netip.Addr{{c.world, c.friend}, {c.friend, c.world}} {
			f.leadsTo(netip.AddrPortFrom(c.unspecified(), nodePort), 8, ServicePolicyOnly, netip.AddrPortFrom(to[0], 80))
			f.leadsTo(netip.AddrPortFrom(c.loopback(), nodePort), 9, ServicePolicyOnly, netip.AddrPortFrom(to[1], 80))
			f.bumpEpoch()
			f.egress(tcp(c.pod, uint16(4000+i), c.host, nodePort, "S").bytes(t)).drops(t, "one of them isn't allowed", HookPodEgress, ReasonDefaultDenied)
		}
		f.leadsTo(netip.AddrPortFrom(c.loopback(), nodePort), 9, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 81))
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4002, c.host, nodePort, "S").bytes(t)).passes(t, "both are", HookPodEgress, ReasonService)
	})
}

// A flow to the node is judged again after some seconds: its port may be a pod's by then.
func TestFlowsToTheNodeAreJudgedAgain(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.isolate(DirEgress, 0)
		f.bumpEpoch()
		send := func() result { return f.egress(tcp(c.pod, 4000, c.host, 8443, "A").bytes(t)) }
		f.egress(tcp(c.pod, 4000, c.host, 8443, "S").bytes(t)).passes(t, "the node", HookPodEgress, ReasonHost)
		f.leadsTo(netip.AddrPortFrom(c.loopback(), 8443), 9, ServicePolicyOnly, netip.AddrPortFrom(c.friend, 80))
		k := ctKey{c: c, peer: c.host, podPort: 4000, peerPort: 8443, proto: 6}
		e, _ := f.flow(k)
		e.AddressEpoch -= 2 // some seconds ago
		m, key := f.ctMap(k)
		f.must(m.Put(key, e))
		send().drops(t, "a host port by now", HookPodEgress, ReasonDefaultDenied)
	})
}

// The version before asked no policy about the own node, and flows of it have no sign of one.
func TestFlowsToTheNodeOfTheVersionBefore(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		f.egress(tcp(c.pod, 4000, c.host, 10250, "S").bytes(t)).passes(t, "open", HookPodEgress, ReasonHost)
		k := ctKey{c: c, peer: c.host, podPort: 4000, peerPort: 10250, proto: 6}
		e, _ := f.flow(k)
		f.must(f.maps.AddressEpochs.Lookup(AddressEpochIndex(c.host), &e.AddressEpoch))
		e.Flags &^= CTByPolicy | CTByService
		e.Group, e.Class, e.SubjectFlags = 0, 0, 0
		m, key := f.ctMap(k)
		f.must(m.Put(key, e))
		f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10250, verdict: VerdictDeny, rule: 2})
		f.bumpEpoch()
		f.egress(tcp(c.pod, 4000, c.host, 10250, "A").bytes(t)).drops(t, "denied since", HookPodEgress, ReasonPolicyDenied)
	})
}

// A link-local address may be a pod's or the node's.
func TestLinkLocalAddressesAreNobodysOnTheWayOut(t *testing.T) {
	f := newFixture(t)
	c := cast6
	to := func(port uint16) result {
		return f.egress(tcp(c.pod, 4000, netip.MustParseAddr("fe80::1"), port, "S").bytes(t))
	}
	to(80).passes(t, "no policy", HookPodEgress, ReasonForwarded)
	f.rule(DirEgress, line{peer: IdentityHost, proto: 6, from: 10250, verdict: VerdictDeny, rule: 1})
	f.rule(DirEgress, line{peer: IdentityWorld, proto: 6, verdict: VerdictAllow, rule: 2})
	f.isolate(DirEgress, 0)
	f.bumpEpoch()
	to(10250).drops(t, "the node is denied", HookPodEgress, ReasonPolicyDenied)
	to(81).drops(t, "the world is allowed", HookPodEgress, ReasonDefaultDenied)
}

// What a pod sends to a group comes to its node, too, if that listens.
func TestGroupsAreJudgedByTheNodeToo(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		groups := []string{"224.0.0.1", "239.1.2.3", "255.255.255.255"}
		if c.pod.Is6() {
			groups = []string{"ff02::1", "ff05::2"}
		}
		each := func(want func(to func(port uint16) result)) {
			f.bumpEpoch()
			for _, group := range groups {
				want(func(port uint16) result {
					return f.egress(udp(c.pod, 4000, netip.MustParseAddr(group), port).bytes(t))
				})
			}
		}
		each(func(to func(uint16) result) { to(5353).passes(t, "no policy", HookPodEgress, ReasonForwarded) })
		f.rule(DirEgress, line{peer: IdentityHost, proto: 17, from: 18091, verdict: VerdictDeny, rule: 1})
		each(func(to func(uint16) result) {
			to(5353).passes(t, "another port of the node is denied", HookPodEgress, ReasonForwarded)
			to(18091).drops(t, "the node is denied", HookPodEgress, ReasonPolicyDenied)
		})
		f.rule(DirEgress, line{peer: IdentityWorld, proto: 17, verdict: VerdictAllow, rule: 2})
		f.isolate(DirEgress, 0)
		each(func(to func(uint16) result) {
			to(18091).drops(t, "the world is allowed", HookPodEgress, ReasonPolicyDenied)
			to(5354).passes(t, "the world is allowed, and the node not denied", HookPodEgress, ReasonForwarded)
		})
		f.removeRules(DirEgress)
		f.isolate(DirEgress, 0)
		each(func(to func(uint16) result) {
			to(6000).drops(t, "isolated, though the node isn't denied", HookPodEgress, ReasonDefaultDenied)
		})
	})
}

// A flow that was judged by a service's backends is judged again after some seconds, since no epoch says that they changed.
func TestFlowsToServicesAreJudgedAgain(t *testing.T) {
	eachFamily(t, func(t *testing.T, f *fixture, c cast) {
		at := netip.AddrPortFrom(c.service, 443)
		f.leadsTo(at, 7, 0, netip.AddrPortFrom(c.friend, 80))
		f.isolate(DirEgress, 0)
		f.rule(DirEgress, line{peer: friendIdentity, rule: 1})
		f.bumpEpoch()
		key := ctKey{c: c, peer: c.service, podPort: 4000, peerPort: 443, proto: 6}
		send := func() result { return f.egress(tcp(c.pod, 4000, c.service, 443, "A").bytes(t)) }
		send().passes(t, "allowed", HookPodEgress, ReasonService)
		if e, _ := f.flow(key); e.Flags&CTByService == 0 {
			t.Errorf("entry %+v doesn't say that a service decided", e)
		}
		f.leadsTo(at, 7, 0, netip.AddrPortFrom(c.world, 80))
		e, _ := f.flow(key)
		e.AddressEpoch -= 2 // as if eight seconds went by
		m, k := f.ctMap(key)
		f.must(m.Put(k, &e))
		send().drops(t, "leads elsewhere", HookPodEgress, ReasonDefaultDenied)

		f.leadsTo(at, 7, 0, netip.AddrPortFrom(c.friend, 80))
		f.bumpEpoch()
		send().passes(t, "leads back, and a policy changed", HookPodEgress, ReasonService)
	})
}

// A running connection through kube-proxy goes to the backend that was chosen, whatever becomes of the service: its
// backends may be not ready for a moment, or one may join that isn't allowed.
func TestRunningConnectionsAreJudgedByTheChosenBackend(t *testing.T) {
	tr := newTranslated(t, newNetNode(t, tcx, 0, "10.1.0.10", "fd00:1::10"))
	serveName(t, tr.outside, ":81")
	service := []netip.Addr{cast4.service, cast6.service}
	inNS(t, tr.ns, func() error {
		for family, nf := range []string{"ip", "ip6"} {
			rule := fmt.Sprintf("%[1]s daddr %[2]s tcp dport 443 dnat %[1]s to %[3]s", nf, service[family], netip.AddrPortFrom(tr.client[family], 81))
			if out, err := exec.Command("nft", "add rule inet proxy translate "+rule).CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
		}
		return nil
	})
	for family := range service {
		at := netip.AddrPortFrom(service[family], 443)
		chosen := netip.AddrPortFrom(tr.client[family], 81)
		// later is as if eight seconds went by.
		later := func() {
			m := []*ebpf.Map{tr.maps.CT4, tr.maps.CT6}[family]
			key, e := make([]byte, m.KeySize()), CTEntry{}
			for entries := m.Iterate(); entries.Next(&key, &e); {
				e.AddressEpoch -= 2
				tr.must(m.Put(key, &e))
			}
		}
		tr.policies[DirEgress] = &testPolicy{}
		tr.isolate(DirEgress, 0)
		tr.rule(DirEgress, line{peer: blockIdentity, proto: 6, from: 81, rule: 1})
		tr.leadsTo(at, 7, 0, chosen)
		tr.bumpEpoch()
		c, ok := call(t, tr.podNS, at)
		if !ok {
			t.Fatalf("family %d: a service that is allowed gives no answer", family)
		}
		tr.leadsTo(at, 7, 0)
		later()
		if !sendLine(c) {
			t.Errorf("family %d: the connection ends while no backend is ready", family)
		}
		tr.leadsTo(at, 7, 0, chosen, netip.AddrPortFrom(chosen.Addr(), 82))
		later()
		if !sendLine(c) {
			t.Errorf("family %d: the connection ends because of a backend that it doesn't go to", family)
		}
		if _, ok := call(t, tr.podNS, at); ok {
			t.Errorf("family %d: a new connection may go to that backend", family)
		}
		tr.removeRules(DirEgress)
		tr.bumpEpoch()
		if sendLine(c) {
			t.Errorf("family %d: the connection goes on that is no longer allowed", family)
		}
	}
}
