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
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

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
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			r := newChained(t, version)
			if err := r.agent(datapath.TCX).Close(); err != nil {
				t.Fatal(err)
			}
			pod := nstest.New(t)
			res := r.add("a", pod)
			if len(res.IPs) != 2 || len(res.Interfaces) != 3 {
				t.Errorf("the result has %d addresses and %d interfaces, the bridge plugin's had 2 and 3", len(res.IPs), len(res.Interfaces))
			}
			if version != "0.3.1" { // CHECK came later
				if err := r.check("a", pod); err != nil {
					t.Errorf("CHECK of a closed pod: %v", err)
				}
			}
			// The node's bridge got its addresses from the plugin.
			fromPod4, fromPod6 := listen(t, r.node, "10.1.0.1"), listen(t, r.node, "fd00:1::1")
			toPod4, toPod6 := listen(t, pod, "10.1.0.2"), listen(t, pod, "fd00:1::2")
			each := func(text string) {
				fromPod4.send(pod, text)
				fromPod6.send(pod, text)
				toPod4.send(r.node, text)
				toPod6.send(r.node, text)
			}
			each("too early")
			d := r.agent(datapath.TCX)
			defer d.Close()
			if from, to := dropped(t, d); from < 2 || to < 1 { // to the pod only the question who has its address
				t.Errorf("dropped: %d packets from the pod, %d to it", from, to)
			}
			forgetNeighbours(t, r.node) // with the packets that wait for them
			r.learns(d, res)
			each("in time")
			for _, box := range []mailbox{fromPod4, fromPod6, toPod4, toPod6} {
				if got := box.next(); got != "in time" {
					t.Errorf("at %s came %q", box.conn.LocalAddr(), got)
				}
			}
			r.del("a", pod)
			r.del("a", pod)
		})
	}
}

// forgetNeighbours drops what the node doesn't know yet of its pods.
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

// The pod knows its gateway without asking: its first connection waits, and doesn't fail for want of an answer.
func TestAnAllowedConnectionIsOnlyLateBesideAnotherCNI(t *testing.T) {
	r := newChained(t, "1.0.0")
	d := r.agent(datapath.TCX)
	defer d.Close()
	pod := nstest.New(t)
	res := r.add("a", pod)
	connected := make(chan netip.Addr)
	go func() { connected <- talk(t, pod, r.node, "192.0.2.1") }()
	for from := uint64(0); from == 0; time.Sleep(time.Millisecond) {
		from, _ = dropped(t, d)
	}
	pod.Do(t, func() error {
		known, err := netlink.NeighList(0, netlink.FAMILY_V4)
		if err == nil && (len(known) != 1 || known[0].State&(netlink.NUD_INCOMPLETE|netlink.NUD_FAILED) != 0) {
			err = fmt.Errorf("the pod's neighbours are %v, want its gateway", known)
		}
		return err
	})
	r.learns(d, res)
	if seen := <-connected; seen.String() != "10.1.0.2" {
		t.Errorf("the server saw %s", seen)
	}
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
