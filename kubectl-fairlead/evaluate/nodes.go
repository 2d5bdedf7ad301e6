// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// silentAfter is three missed reports: agents report at least every minute.
const silentAfter = 3 * time.Minute

func silent(n v1alpha1.MeshNode, now time.Time) bool {
	return n.Status.LastReportTime == nil || now.Sub(n.Status.LastReportTime.Time) > silentAfter
}

// nodesCheck judges whether each node's agent reports and attached the datapath to all of its pods.
func nodesCheck(s Snapshot) Check {
	var f finding
	var ready, pods int
	for _, n := range s.Nodes {
		pods += int(n.Status.Endpoints)
		if node(&f, n, s.Taken) {
			ready++
		}
	}
	missing := withoutReport(s)
	for _, name := range missing {
		f.fail("look at the agent's pod on that node: kubectl -n "+Namespace+" get pods -o wide",
			name+": its agent has never reported")
	}
	summary := fmt.Sprintf("%d of %d ready, %s attached", ready, len(s.Nodes)+len(missing), plural(pods, "pod", "pods"))
	if kinds := datapaths(s.Nodes); kinds != "" {
		summary += " (" + kinds + ")"
	}
	return f.check("fl-nodes-ready", SectionNodes, summary)
}

func node(f *finding, n v1alpha1.MeshNode, now time.Time) bool {
	if silent(n, now) {
		f.fail("look at the agent's pod on that node; its traffic goes on meanwhile", n.Name+": "+age(n, now))
		return false
	}
	ok := true
	if n.Status.EndpointsFailing > 0 {
		f.fail("see the agent's log on that node", fmt.Sprintf("%s: %s without the datapath", n.Name,
			plural(int(n.Status.EndpointsFailing), "pod", "pods")))
		ok = false
	}
	for _, p := range n.Status.Problems {
		f.warn("the message says what the node needs", fmt.Sprintf("%s: %s: %s", n.Name, p.Code, p.Message))
	}
	return ok
}

func age(n v1alpha1.MeshNode, now time.Time) string {
	if n.Status.LastReportTime == nil {
		return "its agent has never reported"
	}
	return "its agent has been silent for " + now.Sub(n.Status.LastReportTime.Time).Round(time.Second).String()
}

func withoutReport(s Snapshot) []string {
	var names []string
	for _, name := range s.KubeNodes {
		if !slices.ContainsFunc(s.Nodes, func(n v1alpha1.MeshNode) bool { return n.Name == name }) {
			names = append(names, name)
		}
	}
	return names
}

// datapaths names what the nodes use, each kind once.
func datapaths(nodes []v1alpha1.MeshNode) string {
	var kinds []string
	for _, n := range nodes {
		for _, k := range []string{n.Status.Datapath, n.Status.Encryption} {
			if k != "" && !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	return strings.Join(kinds, ", ")
}

// syncCheck compares what is in the nodes' kernels with the newest revision that any node of the same relay has.
// Being behind for a moment is how updates look, so it is told and not held against the mesh.
func syncCheck(s Snapshot) Check {
	var f finding
	newest := map[string]uint64{}
	for _, n := range s.Nodes {
		if epoch, rev, ok := revision(n); ok {
			newest[epoch] = max(newest[epoch], rev)
		}
	}
	var synced int
	for _, n := range s.Nodes {
		epoch, rev, ok := revision(n)
		switch {
		case !ok:
			f.fail("see the agent's log on that node: it has not brought the operator's stream into its kernel yet",
				n.Name+": NOT SYNCED")
		case silent(n, s.Taken):
			f.warn("the node goes on with what it knew", n.Name+": STALE, "+age(n, s.Taken))
		case rev < newest[epoch]:
			f.warn("wait a moment; if it stays, see the agent's log on that node",
				fmt.Sprintf("%s: BEHIND by %d, at %d", n.Name, newest[epoch]-rev, rev))
		default:
			synced++
		}
	}
	return f.check("fl-nodes-synced", SectionSync, fmt.Sprintf("%d of %s in sync with the operator", synced, plural(len(s.Nodes), "node", "nodes")))
}

// revision splits epoch/revision.
func revision(n v1alpha1.MeshNode) (epoch string, rev uint64, ok bool) {
	epoch, number, found := strings.Cut(n.Status.AppliedRevision, "/")
	if !found {
		return "", 0, false
	}
	rev, err := strconv.ParseUint(number, 10, 64)
	return epoch, rev, err == nil
}
