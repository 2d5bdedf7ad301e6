// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/masquerade"
	"github.com/fairlead-mesh/fairlead/nodeagent/internal/nstest"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

// The runtime starts the plugin as a program: the test binary is that program.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		main()
		os.Exit(0)
	}
	// With -race each run of the plugin would sleep a second before it ends.
	os.Setenv("GORACE", "atexit_sleep_ms=0")
	os.Exit(m.Run())
}

// runtime is what a container runtime does on a node.
type runtime struct {
	t     *testing.T
	node  *nstest.NS
	outer *nstest.NS
	cni   *libcni.CNIConfig
	list  *libcni.NetworkConfigList
	bin   string
	ipam  string
	bpf   string
}

// newRuntime installs the plugin on a node that is linked to the world. The
// node's agent has programs that let everything pass.
func newRuntime(t *testing.T) *runtime {
	t.Helper()
	r := bareRuntime(t)
	pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pass.Close()
	if err := firstdrop.PinPrograms(r.bpf, firstdrop.TCX, pass, pass); err != nil {
		t.Fatal(err)
	}
	return r
}

// bareRuntime is a node on which no agent ran yet.
func bareRuntime(t *testing.T) *runtime {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cfg := cni.Config{
		PluginPath: exe, BinDir: filepath.Join(dir, "bin"), ConfDir: filepath.Join(dir, "net.d"), StateDir: filepath.Join(dir, "state"),
		PodCIDRs:      []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		NodeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
		BPFDir:        bpfDir(t),
	}
	if err := cni.Install(cfg); err != nil {
		t.Fatal(err)
	}
	list, err := libcni.LoadConfList(cfg.ConfDir, cni.NetworkName)
	if err != nil {
		t.Fatal(err)
	}
	r := &runtime{
		t: t, node: nstest.New(t), outer: nstest.New(t), list: list, bin: cfg.BinDir,
		cni:  libcni.NewCNIConfigWithCacheDir([]string{cfg.BinDir}, filepath.Join(dir, "cache"), nil),
		ipam: filepath.Join(cfg.StateDir, cni.NetworkName), bpf: cfg.BPFDir,
	}
	nstest.Veth(t, r.node, "eth0", []string{"192.0.2.1/24", "2001:db8::1/64"}, r.outer, "out0", []string{"192.0.2.2/24", "2001:db8::2/64"})
	return r
}

// bpfDir is where an agent of the test's own pins.
func bpfDir(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	if err := unix.Mount("bpf", root, "bpf", 0, "mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(root, "fairlead")
	if err := os.MkdirAll(firstdrop.LinkDir(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (r *runtime) args(id string, pod *nstest.NS) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: pod.Path(), IfName: "eth0"}
}

func (r *runtime) add(id string, pod *nstest.NS) *current.Result {
	r.t.Helper()
	var res *current.Result
	r.node.Do(r.t, func() error {
		raw, err := r.cni.AddNetworkList(context.Background(), r.list, r.args(id, pod))
		if err != nil {
			return fmt.Errorf("ADD: %w", err)
		}
		res, err = current.NewResultFromResult(raw)
		return err
	})
	return res
}

func (r *runtime) check(id string, pod *nstest.NS) error {
	return r.node.Try(func() error { return r.cni.CheckNetworkList(context.Background(), r.list, r.args(id, pod)) })
}

func (r *runtime) del(id string, pod *nstest.NS) {
	r.t.Helper()
	r.node.Do(r.t, func() error { return r.cni.DelNetworkList(context.Background(), r.list, r.args(id, pod)) })
}

// nothingLeft looks for interfaces, reservations and pins of pods.
func (r *runtime) nothingLeft() {
	r.t.Helper()
	r.node.Do(r.t, func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range all {
			if strings.HasPrefix(l.Attrs().Name, "flp") {
				err = errors.Join(err, fmt.Errorf("the interface %s is left", l.Attrs().Name))
			}
		}
		files, globErr := filepath.Glob(filepath.Join(r.ipam, "[0-9f]*"))
		if len(files) > 0 {
			err = errors.Join(err, fmt.Errorf("reservations are left: %v", files))
		}
		pins, dirErr := os.ReadDir(firstdrop.LinkDir(r.bpf))
		for _, p := range pins {
			err = errors.Join(err, fmt.Errorf("the pin %s is left", p.Name()))
		}
		return errors.Join(err, globErr, dirErr)
	})
}

// talk opens a TCP connection and returns whom the server saw.
func talk(t *testing.T, from, to *nstest.NS, server string) (seen netip.Addr) {
	t.Helper()
	var l net.Listener
	to.Do(t, func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(server, "8080"))
		return err
	})
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
	from.Do(t, func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		at, err := netip.ParseAddrPort(string(text))
		seen = at.Addr().Unmap()
		return err
	})
	return seen
}

func TestPodsTalk(t *testing.T) {
	r := newRuntime(t)
	a, b := nstest.New(t), nstest.New(t)
	res := r.add("a", a)
	if got := fmt.Sprint(res.IPs[0].Address.String(), " ", res.IPs[1].Address.String()); got != "10.1.0.2/32 fd00:1::2/128" {
		t.Errorf("the result says %s", got)
	}
	r.add("b", b)
	r.node.Do(t, func() error {
		return masquerade.Apply(masquerade.Config{
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}, Tunnel: "fairlead0",
		})
	})
	for _, c := range []struct {
		name     string
		from, to *nstest.NS
		server   string
		seen     string
	}{
		{"pod to pod", a, b, "10.1.0.3", "10.1.0.2"},
		{"pod to pod, IPv6", a, b, "fd00:1::3", "fd00:1::2"},
		{"pod to node", a, r.node, "192.0.2.1", "10.1.0.2"},
		{"pod to node, IPv6", a, r.node, "2001:db8::1", "fd00:1::2"},
		{"node to pod", r.node, b, "10.1.0.3", "192.0.2.1"},
		{"node to pod, IPv6", r.node, b, "fd00:1::3", "2001:db8::1"},
		{"pod to world", a, r.outer, "192.0.2.2", "192.0.2.1"},
		{"pod to world, IPv6", a, r.outer, "2001:db8::2", "2001:db8::1"},
	} {
		if seen := talk(t, c.from, c.to, c.server); seen.String() != c.seen {
			t.Errorf("%s: the server saw %s, want %s", c.name, seen, c.seen)
		}
	}
	// The agent's discovery must find what the plugin made.
	r.node.Do(t, func() error {
		for i, ip := range res.IPs {
			addr, _ := netip.AddrFromSlice(ip.Address.IP)
			link, err := links.HostSide(addr.Unmap())
			if err != nil {
				return err
			}
			if link.Name != res.Interfaces[0].Name || link.PodMAC.String() != res.Interfaces[1].Mac || link.HostMAC.String() != res.Interfaces[0].Mac {
				return fmt.Errorf("address %d is found at %+v, the plugin says %+v", i, link, res.Interfaces)
			}
		}
		return masquerade.Remove()
	})
}

func TestMasqueradeLeavesPodsOfTheMeshAlone(t *testing.T) {
	r := newRuntime(t)
	a := nstest.New(t)
	r.add("a", a)
	cfg := masquerade.Config{
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")},
		Except:   []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16")},
	}
	r.node.Do(t, func() error {
		return errors.Join(masquerade.Remove(), masquerade.Apply(cfg), masquerade.Apply(cfg), nstest.Route("10.2.0.0/16", "eth0", "192.0.2.2"))
	})
	r.outer.Do(t, func() error {
		return errors.Join(nstest.Up("lo", "10.2.0.9/32"), nstest.Route("10.1.0.0/24", "out0", "192.0.2.1"))
	})
	if seen := talk(t, a, r.outer, "10.2.0.9"); seen.String() != "10.1.0.2" {
		t.Errorf("a pod of the mesh saw %s, want the pod's own address", seen)
	}
	if seen := talk(t, a, r.outer, "192.0.2.2"); seen.String() != "192.0.2.1" {
		t.Errorf("the world saw %s, want the node's address", seen)
	}
}

func TestCheckTellsWhatIsMissing(t *testing.T) {
	r := newRuntime(t)
	pod := nstest.New(t)
	r.add("a", pod)
	if err := r.check("a", pod); err != nil {
		t.Fatalf("CHECK of a sound pod: %v", err)
	}
	pod.Do(t, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.RouteDel(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}})
	})
	if err := r.check("a", pod); err == nil || !strings.Contains(err.Error(), "no route to 0.0.0.0/0 over eth0") {
		t.Errorf("CHECK without the default route: %v", err)
	}
	r.del("a", pod)
	r.del("a", pod)
	r.nothingLeft()
}

// An ADD that is killed anywhere is followed by another, or by a DEL.
func TestKilledInTheMiddle(t *testing.T) {
	r := newRuntime(t)
	pod := nstest.New(t)
	for i := range 24 {
		r.killedAdd("a", pod, time.Duration(i)*time.Millisecond)
		if i%2 == 0 {
			first := r.add("a", pod)
			if again := r.add("a", pod); again.IPs[0].Address.String() != first.IPs[0].Address.String() {
				t.Errorf("ADD twice gave %s, then %s", first.IPs[0].Address.String(), again.IPs[0].Address.String())
			}
			if err := r.check("a", pod); err != nil {
				t.Errorf("after a kill at %d ms: %v", i, err)
			}
		}
		r.del("a", pod)
		r.nothingLeft()
	}
}

func (r *runtime) killedAdd(id string, pod *nstest.NS, after time.Duration) {
	r.t.Helper()
	cmd := exec.Command(filepath.Join(r.bin, cni.PluginName))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=" + pod.Path(), "CNI_IFNAME=eth0", "CNI_PATH=" + r.bin}
	// A runtime adds name and version to the plugin's own part.
	conf, err := libcni.InjectConf(r.list.Plugins[0], map[string]any{"name": r.list.Name, "cniVersion": r.list.CNIVersion})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(string(conf.Bytes))
	r.node.Do(r.t, cmd.Start)
	time.Sleep(after)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func TestGarbageCollectionKeepsTheLiving(t *testing.T) {
	r := newRuntime(t)
	alive, dead := nstest.New(t), nstest.New(t)
	r.add("alive", alive)
	r.add("dead", dead)
	r.node.Do(t, func() error {
		list := *r.list
		list.CNIVersion = "1.1.0" // GC came with 1.1
		return r.cni.GCNetworkList(context.Background(), &list, &libcni.GCArgs{
			ValidAttachments: []types.GCAttachment{{ContainerID: "alive", IfName: "eth0"}},
		})
	})
	if err := r.check("alive", alive); err != nil {
		t.Errorf("the living pod: %v", err)
	}
	if err := r.check("dead", dead); err == nil {
		t.Error("the dead pod still has its connection")
	}
	r.del("alive", alive)
	r.nothingLeft()
}

func TestStatus(t *testing.T) {
	r := newRuntime(t)
	r.node.Do(t, func() error {
		list := *r.list
		list.CNIVersion = "1.1.0"
		return r.cni.GetStatusNetworkList(context.Background(), &list)
	})
}
