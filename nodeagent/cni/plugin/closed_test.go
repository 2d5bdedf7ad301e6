// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// agent is what an agent that just started does to the kernel.
func (r *runtime) agent(mode datapath.Mode) *datapath.Datapath {
	r.t.Helper()
	sizes, err := datapath.SizesFor(16 << 20)
	if err != nil {
		r.t.Fatal(err)
	}
	var d *datapath.Datapath
	r.node.Do(r.t, func() error {
		d, err = datapath.Open(datapath.Config{Dir: r.bpf, Mode: mode, Sizes: sizes})
		return err
	})
	return d
}

// somebody is the identity of all pods here.
const somebody = 65800

// learns does what an agent does that hears of a pod: it finds the interface, writes who is behind it, attaches.
func (r *runtime) learns(d *datapath.Datapath, pods ...*current.Result) {
	r.t.Helper()
	ctx := context.Background()
	r.node.Do(r.t, func() error {
		local, err := links.LocalAddresses()
		if err != nil {
			return err
		}
		for _, a := range local {
			row := bpf.Remote{Identity: bpf.IdentityHost, Flags: bpf.RemoteHost}
			if err := errors.Join(d.Addresses().Update(ctx, []netip.Addr{a}, []bpf.Remote{row})...); err != nil {
				return err
			}
		}
		// A policy that allows the identity everything with the world, which everybody else is here.
		for _, dir := range []bpf.Direction{bpf.DirEgress, bpf.DirIngress} {
			key := bpf.SubjectKey{Identity: somebody, Dir: dir}
			if err := errors.Join(d.Subjects().Update(ctx, []bpf.SubjectKey{key}, []bpf.Subject{{}})...); err != nil {
				return err
			}
		}
		peers := []uint32{bpf.IdentityWorld, bpf.IdentityHost}
		if err := errors.Join(d.Members().Update(ctx, peers, []bpf.IdentityClass{{Class: 1}, {Class: 1}})...); err != nil {
			return err
		}
		for _, p := range pods {
			iface := bpf.Iface{Identity: somebody}
			var ifindex uint32
			for _, ip := range p.IPs {
				a := addrs(ip.Address.IP)[0]
				found, err := links.HostSide(a)
				if err != nil {
					return err
				}
				ifindex = uint32(found.Index)
				copy(iface.PodMAC[:], found.PodMAC)
				copy(iface.HostMAC[:], found.HostMAC)
				if a.Is4() {
					iface.Flags, iface.IP4 = iface.Flags|bpf.IfaceIP4, a.As4()
				} else {
					iface.Flags, iface.IP6 = iface.Flags|bpf.IfaceIP6, a.As16()
				}
			}
			if err := errors.Join(d.Ifaces().Update(ctx, []uint32{ifindex}, []bpf.Iface{iface})...); err != nil {
				return err
			}
			if err := d.Attach(table.RolePod, ifindex); err != nil {
				return err
			}
		}
		return nil
	})
}

// dropped counts the packets from and to pods, by reason: that of a closed interface is ReasonNoEndpoint, or ReasonNoPolicy if
// its addresses are known.
func dropped(t *testing.T, d *datapath.Datapath, r bpf.Reason) (from, to uint64) {
	t.Helper()
	all, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	count := func(h bpf.Hook) uint64 { return all[datapath.Counter{Reason: r, Hook: h}].Packets }
	return count(bpf.HookPodEgress), count(bpf.HookPodIngress)
}

// mailbox receives datagrams.
type mailbox struct {
	t    *testing.T
	conn net.PacketConn
}

func listen(t *testing.T, ns *nstest.NS, addr string) mailbox {
	t.Helper()
	m := mailbox{t: t}
	ns.Do(t, func() (err error) {
		m.conn, err = net.ListenPacket("udp", net.JoinHostPort(addr, "0"))
		return err
	})
	t.Cleanup(func() { m.conn.Close() })
	return m
}

func (m mailbox) send(from *nstest.NS, text string) {
	m.t.Helper()
	from.Do(m.t, func() error {
		c, err := net.Dial("udp", m.conn.LocalAddr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	})
}

// next is the first datagram that came in, however long ago.
func (m mailbox) next() string {
	m.t.Helper()
	buf := make([]byte, 100)
	if err := m.conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		m.t.Fatal(err)
	}
	n, _, err := m.conn.ReadFrom(buf)
	if err != nil {
		m.t.Fatalf("nothing comes in at %s: %v", m.conn.LocalAddr(), err)
	}
	return string(buf[:n])
}

// From ADD on nothing comes from the pod or goes to it, with no agent running. When an agent knows the pod, what policy allows
// passes; what was dropped before never arrives.
func TestNoPacketBeforePolicy(t *testing.T) {
	for _, mode := range []datapath.Mode{datapath.TCX, datapath.Clsact} {
		t.Run(string(mode), func(t *testing.T) {
			r := bareRuntime(t)
			if err := r.agent(mode).Close(); err != nil { // it ran once, and was killed
				t.Fatal(err)
			}
			pod := nstest.New(t)
			res := r.add("a", pod)
			if err := r.check("a", pod); err != nil {
				t.Errorf("CHECK of a closed pod: %v", err)
			}
			boxes := []struct {
				mailbox
				from *nstest.NS
			}{
				{listen(t, r.node, "192.0.2.1"), pod}, {listen(t, r.node, "2001:db8::1"), pod}, {listen(t, r.outer, "192.0.2.2"), pod},
				{listen(t, pod, "10.1.0.2"), r.node}, {listen(t, pod, "fd00:1::2"), r.node},
			}
			for _, b := range boxes {
				b.send(b.from, "too early")
			}
			d := r.agent(mode)
			defer d.Close()
			if from, to := dropped(t, d, bpf.ReasonNoEndpoint); from < 3 || to < 2 {
				t.Errorf("dropped: %d packets from the pod, %d to it; want 3 and 2 at least", from, to)
			}
			r.learns(d, res)
			for _, b := range boxes {
				b.send(b.from, "in time")
				if got := b.next(); got != "in time" {
					t.Errorf("at %s came %q", b.conn.LocalAddr(), got)
				}
			}
			if err := r.check("a", pod); err != nil {
				t.Errorf("CHECK of a pod that the agent has taken over: %v", err)
			}
			r.del("a", pod)
			r.nothingLeft()
		})
	}
}

// A connection that policy allows is only late: the first segment is lost, and sent again.
func TestAnAllowedConnectionIsOnlyLate(t *testing.T) {
	r := bareRuntime(t)
	d := r.agent(datapath.TCX)
	defer d.Close()
	pod := nstest.New(t)
	res := r.add("a", pod)
	late(t, d, bpf.ReasonNoEndpoint, func() netip.Addr { return talk(t, pod, r.node, "192.0.2.1") }, func() { r.learns(d, res) })
}

// late calls, waits until a packet of the call was dropped for that reason, lets the agent learn, and wants the call to succeed.
func late(t *testing.T, d *datapath.Datapath, why bpf.Reason, call func() netip.Addr, learn func()) {
	t.Helper()
	connected := make(chan netip.Addr, 1)
	go func() {
		defer close(connected) // also when the call has failed the test
		connected <- call()
	}()
	for from := uint64(0); from == 0; time.Sleep(time.Millisecond) {
		if from, _ = dropped(t, d, why); len(connected) > 0 || t.Failed() {
			t.Fatal("the call ended before the agent knew the pod")
		}
	}
	learn()
	if seen := <-connected; seen.String() != "10.1.0.2" {
		t.Errorf("the server saw %s", seen)
	}
}

func codeOf(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// Where no agent ran yet, nothing could be closed: pods wait.
func TestWithoutAnAgentsProgramsNoPodStarts(t *testing.T) {
	r := bareRuntime(t)
	pod := nstest.New(t)
	list := *r.list
	list.CNIVersion = "1.1.0"
	err := r.node.Try(func() error {
		_, err := r.cni.AddNetworkList(context.Background(), r.list, r.args("a", pod))
		return err
	})
	if codeOf(err) != types.ErrTryAgainLater {
		t.Errorf("ADD: %v, want code %d", err, types.ErrTryAgainLater)
	}
	err = r.node.Try(func() error { return r.cni.GetStatusNetworkList(context.Background(), &list) })
	if codeOf(err) != types.ErrPluginNotAvailable {
		t.Errorf("STATUS: %v, want code %d", err, types.ErrPluginNotAvailable)
	}
	r.nothingLeft()
	r.del("a", pod)

	if err := r.agent(datapath.TCX).Close(); err != nil {
		t.Fatal(err)
	}
	r.node.Do(t, func() error { return r.cni.GetStatusNetworkList(context.Background(), &list) })
	r.add("a", pod)
}

// A sandbox that is made anew under another number, and one whose namespace went before DEL.
func TestASandboxThatIsMadeAnewIsClosedToo(t *testing.T) {
	r := bareRuntime(t)
	d := r.agent(datapath.TCX)
	defer d.Close()
	first, second := nstest.New(t), nstest.New(t)
	r.learns(d, r.add("first", first))
	res := r.add("second", second) // before the first one's DEL, as the kubelet does it
	r.node.Do(t, func() error {
		return r.cni.DelNetworkList(context.Background(), r.list, r.args("first", nstest.New(t)))
	})
	box := listen(t, r.node, "192.0.2.1")
	box.send(second, "too early")
	r.learns(d, res)
	box.send(second, "in time")
	if got := box.next(); got != "in time" {
		t.Errorf("%q came from the second sandbox", got)
	}
	gone := r.args("second", second)
	gone.NetNS = ""
	r.node.Do(t, func() error { return r.cni.DelNetworkList(context.Background(), r.list, gone) })
	r.nothingLeft()
}

// Somebody took a program away: CHECK says so.
func TestCheckSeesAnOpenInterface(t *testing.T) {
	r := bareRuntime(t)
	d := r.agent(datapath.TCX)
	defer d.Close()
	pod := nstest.New(t)
	res := r.add("a", pod)
	r.node.Do(t, func() error {
		host, err := netlink.LinkByName(res.Interfaces[0].Name)
		if err != nil {
			return err
		}
		return d.Detach(table.RolePod, uint32(host.Attrs().Index))
	})
	if err := r.check("a", pod); err == nil || !strings.Contains(err.Error(), "not closed") {
		t.Errorf("CHECK of an open interface: %v", err)
	}
}
