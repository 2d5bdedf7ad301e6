// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/fairlead-mesh/fairlead/nodeagent/cni"
	"github.com/fairlead-mesh/fairlead/nodeagent/cni/pod"
)

// addChained closes what the plugin before made, and hands its result on.
func addChained(conf *cni.NetConf, args *skel.CmdArgs) error {
	prev, err := previous(conf)
	if err != nil {
		return err
	}
	if prev == nil {
		return errors.New("the configuration is chained, but there is no previous result: it must come behind the plugin that connects the pods")
	}
	f := foreign(conf, args)
	for _, ip := range prev.IPs {
		f.Addresses = append(f.Addresses, addrs(ip.Address.IP)...)
	}
	if err := pod.CloseForeign(f); err != nil {
		return notReady(err)
	}
	return types.PrintResult(conf.PrevResult, conf.CNIVersion)
}

func foreign(conf *cni.NetConf, args *skel.CmdArgs) pod.Foreign {
	return pod.Foreign{NetNS: args.Netns, IfName: args.IfName, BPFDir: conf.BPFDir}
}

// previous is what the plugin before returned, or what ADD did; nil if the
// runtime doesn't hand it over.
func previous(conf *cni.NetConf) (*current.Result, error) {
	if conf.RawPrevResult == nil {
		return nil, nil
	}
	if err := version.ParsePrevResult(&conf.PluginConf); err != nil {
		return nil, fmt.Errorf("parsing the previous result: %w", err)
	}
	prev, err := current.NewResultFromResult(conf.PrevResult)
	if err != nil {
		return nil, fmt.Errorf("reading the previous result: %w", err)
	}
	return prev, nil
}

func addrs(ip net.IP) []netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return nil
	}
	return []netip.Addr{a.Unmap()}
}
