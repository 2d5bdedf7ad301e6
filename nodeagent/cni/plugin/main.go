// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fairlead-cni is the plugin that the container runtime calls for
// every pod that starts or ends. It needs nothing but its configuration and
// the folder of the address reservations: no agent, no API server.
//
// A pod's interface works from the moment ADD returns; the agent attaches its
// programs once it hears of the pod, usually before its containers run. In
// that window the pod reaches what plain routing reaches, as it would with
// any other CNI; other clusters' pods it does not reach, since only the
// agent's programs lead there.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: add, Del: del, Check: check, GC: collect, Status: status,
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "fairlead-cni: a routed veth pair per pod")
}
