// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/ipam"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/pod"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/firstdrop"
)

func add(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if err := firstdrop.Ready(conf.BPFDir); err != nil {
		return notReady(err)
	}
	if conf.Chained {
		return addChained(conf, args)
	}
	owner := ownerOf(args)
	spec := pod.Spec{Owner: owner, NetNS: args.Netns, NodeAddresses: conf.NodeAddresses, MTU: conf.MTU, BPFDir: conf.BPFDir}
	spec.Addresses, err = reserve(conf, owner)
	if err != nil {
		return err
	}
	ifs, err := pod.Connect(spec)
	if err != nil {
		return notReady(errors.Join(err, release(conf, owner)))
	}
	return types.PrintResult(result(spec, ifs), conf.CNIVersion)
}

// notReady makes an error that passes by itself one that the runtime knows.
func notReady(err error) error {
	if errors.Is(err, firstdrop.ErrNoPrograms) {
		return types.NewError(types.ErrTryAgainLater, "the pod must wait for Fairlead's node agent", err.Error())
	}
	return err
}

// del frees the address last: it must not be given to the next pod while the
// old one still has it. Nothing to do is no error, as the specification wants.
// A chained plugin leaves the interface closed: it is there until the plugin
// before has taken it away, and its pins go with the agent's next look.
func del(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.Chained {
		return nil
	}
	owner := ownerOf(args)
	if err := pod.Disconnect(owner, conf.BPFDir); err != nil {
		return err
	}
	return release(conf, owner)
}

func check(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.Chained {
		return pod.VerifyForeign(foreign(conf, args))
	}
	owner := ownerOf(args)
	store, err := openStore(conf)
	if err != nil {
		return err
	}
	defer store.Close()
	addrs, err := store.Of(owner)
	if err != nil {
		return err
	}
	if len(addrs) == 0 {
		return fmt.Errorf("container %s has no address reserved", args.ContainerID)
	}
	if err := samePrevious(conf, addrs); err != nil {
		return err
	}
	return pod.Verify(pod.Spec{Owner: owner, NetNS: args.Netns, Addresses: addrs, BPFDir: conf.BPFDir})
}

// collect removes what belongs to attachments that the runtime doesn't know.
func collect(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err != nil {
		return err
	}
	if conf.Chained {
		return nil
	}
	valid := map[ipam.Owner]bool{}
	var keep []ipam.Owner
	for _, a := range conf.ValidAttachments {
		o := ipam.Owner{ContainerID: a.ContainerID, IfName: a.IfName}
		valid[o], keep = true, append(keep, o)
	}
	store, err := openStore(conf)
	if err != nil {
		return err
	}
	defer store.Close()
	owners, err := pod.Owners()
	if err != nil {
		return err
	}
	for _, o := range owners {
		if !valid[o] {
			if err := pod.Disconnect(o, conf.BPFDir); err != nil {
				return err
			}
		}
	}
	_, err = store.Retain(keep)
	return err
}

func status(args *skel.CmdArgs) error {
	conf, err := cni.ParseConf(args.StdinData)
	if err == nil {
		err = firstdrop.Ready(conf.BPFDir)
	}
	if err == nil && !conf.Chained {
		err = writable(filepath.Join(conf.StateDir, cni.NetworkName))
	}
	if err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the plugin can't connect pods", err.Error())
	}
	return nil
}

func writable(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".status-*")
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// samePrevious compares the reservation with what ADD said, if the runtime
// hands that over.
func samePrevious(conf *cni.NetConf, addrs []netip.Addr) error {
	prev, err := previous(conf)
	if prev == nil || err != nil {
		return err
	}
	for _, addr := range addrs {
		found := false
		for _, ip := range prev.IPs {
			found = found || ip.Address.IP.Equal(addr.AsSlice())
		}
		if !found {
			return fmt.Errorf("%s is reserved for the container, but the previous result doesn't have it", addr)
		}
	}
	return nil
}

func reserve(conf *cni.NetConf, owner ipam.Owner) ([]netip.Addr, error) {
	store, err := openStore(conf)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Allocate(owner, conf.PodCIDRs)
}

func release(conf *cni.NetConf, owner ipam.Owner) error {
	store, err := openStore(conf)
	if err != nil {
		return err
	}
	defer store.Close()
	return store.Release(owner)
}

func openStore(conf *cni.NetConf) (*ipam.Store, error) {
	return ipam.Open(filepath.Join(conf.StateDir, cni.NetworkName))
}

func ownerOf(args *skel.CmdArgs) ipam.Owner {
	return ipam.Owner{ContainerID: args.ContainerID, IfName: args.IfName}
}

func result(s pod.Spec, ifs pod.Interfaces) *current.Result {
	r := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: ifs.HostName, Mac: ifs.HostMAC.String(), Mtu: ifs.HostMTU},
			{Name: s.Owner.IfName, Mac: ifs.PodMAC.String(), Mtu: ifs.PodMTU, Sandbox: s.NetNS},
		},
	}
	for _, ip := range s.Addresses {
		gw := net.IP(pod.Gateway(ip).AsSlice())
		r.IPs = append(r.IPs, &current.IPConfig{
			Interface: current.Int(1), Gateway: gw,
			Address: net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())},
		})
		r.Routes = append(r.Routes, &types.Route{
			Dst: net.IPNet{IP: make(net.IP, ip.BitLen()/8), Mask: net.CIDRMask(0, ip.BitLen())}, GW: gw,
		})
	}
	return r
}
