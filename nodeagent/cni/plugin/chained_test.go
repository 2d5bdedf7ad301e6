// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// reference builds the reference plugins that the lab's nodes have, in their pinned version.
func reference(t *testing.T, bin string) {
	t.Helper()
	const plugins = "github.com/containernetworking/plugins/plugins/"
	// The same flags as hack/lab/toolchain: what is built there is not compiled again.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", bin+"/", plugins+"main/bridge", plugins+"main/macvlan", plugins+"ipam/host-local")
	cmd.Dir = "../../../hack/toolchain/cniplugins"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the reference plugins: %v\n%s", err, out)
	}
}

// newChained is a node whose pods are connected by the reference bridge plugin, with ours behind it.
func newChained(t *testing.T, version string) *runtime {
	t.Helper()
	r := bareRuntime(t)
	reference(t, r.bin)
	// The bridge may use its IPv6 addresses at once.
	r.node.Do(t, func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0o644) })
	r.outer.Do(t, func() error {
		return errors.Join(nstest.Route("10.1.0.0/24", "out0", "192.0.2.1"), nstest.Route("fd00:1::/64", "out0", "2001:db8::1"))
	})
	r.list = chainedList(t, r, version, map[string]any{
		"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": filepath.Join(t.TempDir(), "ipam"),
			"routes": []map[string]string{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}},
			"ranges": [][]map[string]string{{{"subnet": "10.1.0.0/24"}}, {{"subnet": "fd00:1::/64"}}},
		},
	})
	r.cni = libcni.NewCNIConfigWithCacheDir([]string{r.bin}, filepath.Join(t.TempDir(), "cache"), nil)
	return r
}

func chainedList(t *testing.T, r *runtime, version string, first map[string]any) *libcni.NetworkConfigList {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"cniVersion": version, "name": "reference",
		"plugins": []map[string]any{first, {"type": cni.PluginName, "chained": true, "bpfDir": r.bpf}},
	})
	if err != nil {
		t.Fatal(err)
	}
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Beside the reference bridge plugin, in every version of the specification: nothing passes before the agent knows the pod; the
// agent finds it although it answers nobody; what is allowed passes then, over the same links.
func TestNoPacketBeforePolicyBesideAnotherCNI(t *testing.T) {
	for _, c := range []struct {
		version string
		mode    datapath.Mode
	}{{"0.3.1", datapath.TCX}, {"0.4.0", datapath.TCX}, {"1.0.0", datapath.TCX}, {"1.1.0", datapath.TCX}, {"1.0.0", datapath.Clsact}} {
		t.Run(fmt.Sprintf("%s %s", c.version, c.mode), func(t *testing.T) {
			r := newChained(t, c.version)
			if err := r.agent(c.mode).Close(); err != nil {
				t.Fatal(err)
			}
			pod := nstest.New(t)
			res := r.add("a", pod)
			if len(res.IPs) != 2 || len(res.Interfaces) != 3 {
				t.Errorf("the result has %d addresses and %d interfaces, the bridge plugin's had 2 and 3", len(res.IPs), len(res.Interfaces))
			}
			if c.version != "0.3.1" { // CHECK came later
				if err := r.check("a", pod); err != nil {
					t.Errorf("CHECK of a closed pod: %v", err)
				}
			}
			boxes := []struct {
				mailbox
				from *nstest.NS
			}{
				{listen(t, r.outer, "192.0.2.2"), pod}, {listen(t, r.outer, "2001:db8::2"), pod},
				{listen(t, pod, "10.1.0.2"), r.outer}, {listen(t, pod, "fd00:1::2"), r.outer},
			}
			for _, b := range boxes {
				b.send(b.from, "too early")
			}
			d := r.agent(c.mode)
			defer d.Close()
			if from, to := dropped(t, d, bpf.ReasonNoPolicy); from < 2 || to < 2 {
				t.Errorf("dropped: %d packets from the pod, %d to it, want 2 each at least", from, to)
			}
			if from, to := dropped(t, d, bpf.ReasonNoEndpoint); from+to > 0 {
				t.Logf("before the plugin had written the pod's addresses %d packets from it and %d to it were dropped", from, to)
			}
			r.learns(d, res)
			for _, b := range boxes {
				b.send(b.from, "in time")
				if got := b.next(); got != "in time" {
					t.Errorf("at %s came %q", b.conn.LocalAddr(), got)
				}
			}
			r.del("a", pod)
			r.del("a", pod)
		})
	}
}

// Two pods of one bridge ask for each other's MAC addresses before anybody knows them: their first connection waits, and doesn't
// fail for want of an answer.
func TestAnAllowedConnectionIsOnlyLateBesideAnotherCNI(t *testing.T) {
	r := newChained(t, "1.0.0")
	d := r.agent(datapath.TCX)
	defer d.Close()
	a, b := nstest.New(t), nstest.New(t)
	first, second := r.add("a", a), r.add("b", b)
	// The first segment is sent when the answer is there.
	late(t, d, bpf.ReasonNoPolicy, func() netip.Addr { return talk(t, a, b, "10.1.0.3") }, func() { r.learns(d, first, second) })
}

// An agent that starts removes rows of pods that it doesn't know yet. It finds the pod nevertheless, which answers nobody then.
func TestAPodIsFoundWithoutItsRow(t *testing.T) {
	r := newChained(t, "1.0.0")
	d := r.agent(datapath.TCX)
	defer d.Close()
	pod := nstest.New(t)
	res := r.add("a", pod)
	rows := map[uint32]bpf.Iface{}
	err := d.Ifaces().Have(context.Background(), func(keys []uint32, values []bpf.Iface) {
		for i, key := range keys {
			rows[key] = values[i]
		}
	})
	if err != nil || len(rows) != 1 {
		t.Fatalf("rows %v, %v", rows, err)
	}
	for key, row := range rows {
		if row.Identity != bpf.IdentityUnknown || row.IP4 != [4]byte{10, 1, 0, 2} || row.Flags != bpf.IfaceIP4|bpf.IfaceIP6 {
			t.Errorf("the plugin wrote %+v", row)
		}
		if err := errors.Join(d.Ifaces().Delete(context.Background(), []uint32{key})...); err != nil {
			t.Fatal(err)
		}
	}
	forgetNeighbours(t, r.node)
	r.learns(d, res)
	if seen := talk(t, pod, r.node, "192.0.2.1"); seen.String() != "10.1.0.2" {
		t.Errorf("the server saw %s", seen)
	}
}

// forgetNeighbours makes the node forget what it learnt of its pods, as it does by itself after a while.
func forgetNeighbours(t *testing.T, node *nstest.NS) {
	t.Helper()
	node.Do(t, func() error {
		all, err := netlink.NeighList(0, 0)
		for _, n := range all {
			if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
				err = errors.Join(err, netlink.NeighDel(&n))
			}
		}
		return err
	})
}

// The chained plugin's DEL comes first, when the pod may still send. Its pins can go when the interface has gone.
func TestAChainedPodStaysClosedUntilItIsGone(t *testing.T) {
	r := newChained(t, "1.0.0")
	d := r.agent(datapath.TCX)
	defer d.Close()
	pod := nstest.New(t)
	r.add("a", pod)
	closed, err := d.Attached(table.RolePod)
	if err != nil || len(closed) != 1 {
		t.Fatalf("closed interfaces: %v, %v", closed, err)
	}
	conf, err := libcni.InjectConf(r.list.Plugins[1], map[string]any{"name": r.list.Name, "cniVersion": r.list.CNIVersion})
	if err != nil {
		t.Fatal(err)
	}
	without := r.args("a", pod)
	without.NetNS = "" // as after a reboot
	for _, args := range []*libcni.RuntimeConf{r.args("a", pod), without} {
		r.node.Do(t, func() error {
			return errors.Join(r.cni.DelNetwork(context.Background(), conf, args), firstdrop.Check(r.bpf, closed[0]))
		})
	}
	r.del("a", pod)
	r.node.Do(t, func() error { return firstdrop.Forget(r.bpf, closed[0]) })
	r.nothingLeft()
}

func TestChainingWhereItCantBe(t *testing.T) {
	r := newChained(t, "1.0.0")
	pod := nstest.New(t)
	try := func(list *libcni.NetworkConfigList) error {
		return r.node.Try(func() error {
			_, err := r.cni.AddNetworkList(context.Background(), list, r.args("a", pod))
			return errors.Join(err, r.cni.DelNetworkList(context.Background(), list, r.args("a", pod)))
		})
	}
	if err := try(r.list); codeOf(err) != types.ErrTryAgainLater {
		t.Errorf("where no agent ran: %v", err)
	}
	if err := r.agent(datapath.TCX).Close(); err != nil {
		t.Fatal(err)
	}
	macvlan := chainedList(t, r, "1.0.0", map[string]any{
		"type": "macvlan", "master": "eth0",
		"ipam": map[string]any{"type": "host-local", "dataDir": filepath.Join(t.TempDir(), "ipam"), "ranges": [][]map[string]string{{{"subnet": "10.5.0.0/24"}}}},
	})
	if err := try(macvlan); err == nil || !strings.Contains(err.Error(), "no host side") {
		t.Errorf("behind macvlan: %v", err)
	}
	alone := *r.list
	alone.Plugins = alone.Plugins[1:]
	if err := try(&alone); err == nil || !strings.Contains(err.Error(), "no previous result") {
		t.Errorf("alone: %v", err)
	}
}

// What the plugin before returned is handed on as it is.
func TestAChainedPluginHandsTheResultOn(t *testing.T) {
	r := newChained(t, "1.0.0")
	if err := r.agent(datapath.TCX).Close(); err != nil {
		t.Fatal(err)
	}
	list := *r.list
	list.Plugins = list.Plugins[:1]
	pod := nstest.New(t)
	var before types.Result
	r.node.Do(t, func() (err error) {
		before, err = r.cni.AddNetworkList(context.Background(), &list, r.args("a", pod))
		return err
	})
	conf, err := libcni.InjectConf(r.list.Plugins[1], map[string]any{"name": r.list.Name, "cniVersion": "1.0.0", "prevResult": before})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // ADD may come twice
		r.node.Do(t, func() error {
			raw, err := r.cni.AddNetwork(context.Background(), conf, r.args("a", pod))
			if err != nil {
				return err
			}
			want, err := json.Marshal(before)
			if err != nil {
				return err
			}
			if got, err := json.Marshal(raw); err != nil || string(got) != string(want) {
				return errors.Join(err, fmt.Errorf("the result is\n%s\nthe plugin before said\n%s", got, want))
			}
			return nil
		})
	}
	r.node.Do(t, func() error { return r.cni.DelNetworkList(context.Background(), &list, r.args("a", pod)) })
}
