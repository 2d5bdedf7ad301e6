// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fairlead-cni is the plugin that the container runtime calls for
// every pod that starts or ends. It needs its configuration, the folder of the
// address reservations, and the programs that the agent has pinned: no running
// agent, no API server.
//
// ADD returns with those programs on the pod's interface. They drop all that
// comes from the pod and goes to it, until the agent has heard of the pod and
// written who it is. Where there are no programs, since no agent ran on the
// node yet, ADD fails, and the runtime tries again.
//
// Behind another plugin ("chained" in the configuration) it does this alone.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: add, Del: del, Check: check, GC: collect, Status: status,
	}, version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0"), "fairlead-cni: a routed veth pair per pod, closed until the agent knows the pod")
}
