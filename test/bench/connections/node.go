// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// The node of every setup: a client's pod and a server's, each behind a veth, with the node between them.
var (
	pods        = netip.MustParsePrefix("10.1.0.0/16")
	clientPod   = netip.MustParsePrefix("10.1.1.2/24")
	serverPod   = netip.MustParsePrefix("10.1.2.2/24")
	nodeAddress = netip.MustParseAddr("192.168.77.1")
)

const (
	backendPort = 8080
	deniedPort  = 8081 // somebody listens there, and policy says no
)

// services are n services in front of the server's pod.
func services(n int) []service {
	var out []service
	for i := range n {
		out = append(out, service{
			name:     fmt.Sprintf("shop/svc-%d:http", i),
			frontend: netip.AddrPortFrom(frontend(i), 80), backend: netip.AddrPortFrom(serverPod.Addr(), backendPort),
		})
	}
	return out
}

func frontend(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 96 + byte(i>>16), byte(i >> 8), byte(i)})
}

// Setup is one way for connections to go.
type Setup struct {
	Name     string
	Services int
	Rules    string // of the node: "", iptables-legacy, iptables-nft, nftables
	Agent    bool
	Policy   bool   // programs on both pods, and a policy at both ends
	Cgroup   string // where the client's sockets are translated; empty: they are not
	Direct   bool   // the client connects to the pod and not to a service
}

// NodeConfig of a setup's node.
type NodeConfig struct {
	Setup Setup
	Pins  string // in a BPF file system
}

// NodeState says how to reach the pods, and what it took.
type NodeState struct {
	Client, Server string        // files of their network namespaces
	Programmed     time.Duration // rules or maps, from the first service to the last
}

// serveNode runs in a network namespace of its own, which is the node. It holds the pods' namespaces.
func serveNode() error {
	var client, server netns.NsHandle
	return process.Serve(process.Handlers{
		"start": process.Call(func(cfg NodeConfig) (s NodeState, err error) {
			if client, err = pod("client", clientPod); err != nil {
				return s, err
			}
			if server, err = pod("server", serverPod); err != nil {
				return s, err
			}
			s.Client, s.Server = path(client), path(server)
			if err := node(); err != nil {
				return s, err
			}
			start := time.Now()
			if err := rules(cfg.Setup); err != nil {
				return s, err
			}
			s.Programmed = time.Since(start)
			if !cfg.Setup.Agent {
				return s, nil
			}
			s.Programmed, err = runAgent(cfg)
			return s, err
		}),
	})
}

func path(ns netns.NsHandle) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)) }

// node brings up what every node has.
func node() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find loopback: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("raise loopback: %w", err)
	}
	if err := address(lo, netip.PrefixFrom(nodeAddress, 32)); err != nil {
		return err
	}
	return sysctl("net/ipv4/ip_forward", "1")
}

// pod makes a pod's network namespace and its veth.
func pod(name string, addr netip.Prefix) (netns.NsHandle, error) {
	var ns netns.NsHandle
	err := onThread(func() (err error) {
		ns, err = netns.New()
		return err
	})
	if err != nil {
		return ns, fmt.Errorf("make a network namespace (as root?): %w", err)
	}
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(pair); err != nil {
		return ns, fmt.Errorf("make the veth of %s: %w", name, err)
	}
	gateway := netip.PrefixFrom(addr.Masked().Addr().Next(), addr.Bits())
	if err := address(pair, gateway); err != nil {
		return ns, err
	}
	if err := netlink.LinkSetUp(pair); err != nil {
		return ns, fmt.Errorf("raise %s: %w", name, err)
	}
	return ns, inside(ns, func() error { return inPod(addr, gateway.Addr()) })
}

func inPod(addr netip.Prefix, gateway netip.Addr) error {
	for _, name := range []string{"lo", "eth0"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("raise %s: %w", name, err)
		}
		if name == "lo" {
			continue
		}
		if err := address(l, addr); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("add the pod's route: %w", err)
		}
	}
	// A closed connection keeps its port for a minute; a bench would run out of them.
	if err := sysctl("net/ipv4/tcp_max_tw_buckets", "64"); err != nil {
		return err
	}
	return sysctl("net/ipv4/ip_local_port_range", "1024 65535")
}

func address(l netlink.Link, p netip.Prefix) error {
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return fmt.Errorf("parse %s: %w", p, err)
	}
	if err := netlink.AddrAdd(l, a); err != nil {
		return fmt.Errorf("give %s to %s: %w", p, l.Attrs().Name, err)
	}
	return nil
}

// sysctl sets a parameter of this thread's network namespace.
func sysctl(name, value string) error {
	if err := os.WriteFile("/proc/sys/"+name, []byte(value), 0); err != nil {
		return fmt.Errorf("set %s: %w", name, err)
	}
	return nil
}

// rules loads the node's rule set.
func rules(w Setup) error {
	var cmd *exec.Cmd
	var text string
	switch w.Rules {
	case "":
		return nil
	case "iptables-legacy", "iptables-nft":
		cmd, text = exec.Command(w.Rules+"-restore", "--noflush"), iptablesRules(services(w.Services), pods)
	case "nftables":
		cmd, text = exec.Command("nft", "-f", "-"), nftablesRules(services(w.Services), pods)
	default:
		return fmt.Errorf("there are no rules %q", w.Rules)
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(text), &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", w.Rules, err, stderr.String())
	}
	// Closed connections stay in the table for two minutes; a bench would fill it.
	for _, name := range []string{"time_wait", "close_wait", "last_ack", "fin_wait", "close"} {
		err := sysctl("net/netfilter/nf_conntrack_tcp_timeout_"+name, "3")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// inside runs f on a thread of its own in a network namespace.
func inside(ns netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread never gives its thread back: it may be in any namespace by then.
func onThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- f()
	}()
	return <-result
}
