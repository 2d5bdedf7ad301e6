// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// statusOf writes a report as a MeshNode's status, in a stable order. An agent that has just started and not yet opened
// its device reports no key: the node keeps the one it had, or every other node would take its tunnel down.
func statusOf(req *relayv1.ReportRequest, was v1alpha1.MeshNodeStatus, now time.Time) v1alpha1.MeshNodeStatus {
	at := metav1.NewTime(now.Truncate(time.Second))
	s := v1alpha1.MeshNodeStatus{
		WireGuardPublicKey: req.GetWireguardPublicKey(), WireGuardPort: clamp(req.GetWireguardPort()),
		PodsInPodCIDRs: req.GetPodsInPodCidrs(), Encryption: req.GetEncryption(), Datapath: req.GetDatapath(),
		AgentVersion: req.GetAgentVersion(), LastReportTime: &at,
		Endpoints: clamp(req.GetEndpoints()), EndpointsFailing: clamp(req.GetEndpointsFailing()), Services: clamp(req.GetServices()),
	}
	if s.WireGuardPublicKey == "" {
		s.WireGuardPublicKey, s.WireGuardPort = was.WireGuardPublicKey, was.WireGuardPort
		s.PodsInPodCIDRs = was.PodsInPodCIDRs
	}
	if p := req.GetApplied(); p != nil {
		s.AppliedRevision = fmt.Sprintf("%s/%d", p.GetEpoch(), p.GetRevision())
	}
	for _, p := range req.GetPolicies() {
		s.Policies = append(s.Policies, v1alpha1.NodePolicy{Key: p.GetKey(), Revision: p.GetRevision(), Content: p.GetContent(), Error: p.GetError(), Warning: p.GetWarning()})
	}
	slices.SortFunc(s.Policies, func(a, b v1alpha1.NodePolicy) int { return cmp.Compare(a.Key, b.Key) })
	s.Tunnels = tunnelsOf(req)
	for _, d := range req.GetDrops() {
		s.Drops = append(s.Drops, v1alpha1.NodeDrop{Reason: d.GetReason(), Direction: d.GetDirection(), Packets: int64(min(d.GetPackets(), math.MaxInt64))})
	}
	slices.SortFunc(s.Drops, func(a, b v1alpha1.NodeDrop) int {
		return cmp.Or(cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Direction, b.Direction))
	})
	for _, p := range req.GetProblems() {
		s.Problems = append(s.Problems, v1alpha1.NodeProblem{Code: p.GetCode(), Message: p.GetMessage()})
	}
	slices.SortFunc(s.Problems, func(a, b v1alpha1.NodeProblem) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
	})
	return s
}

func clamp(n uint32) int32 { return int32(min(n, math.MaxInt32)) }
