// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"fmt"
	"io"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// runPolicies shows the status of a cluster's mesh policies.
func runPolicies(w *world, out io.Writer, args []string) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	var list v1alpha1.MeshNetworkPolicyList
	if err := c.kube.List(context.Background(), &list); err != nil {
		return err
	}
	for _, p := range list.Items {
		_, _ = fmt.Fprintf(out, "%s/%s: in force on %d of %d nodes, revision %s\n",
			p.Namespace, p.Name, p.Status.Nodes.Realized, p.Status.Nodes.Total, p.Status.AppliedRevision)
		for _, cond := range p.Status.Conditions {
			if cond.Type == "Ready" {
				_, _ = fmt.Fprintf(out, "  Ready %s: %s\n", cond.Status, cond.Message)
			}
		}
	}
	var others npav1alpha2.ClusterNetworkPolicyList
	if err := c.kube.List(context.Background(), &others); err != nil {
		return err
	}
	for _, p := range others.Items {
		showConditions(out, p.Name, p.Status.Conditions)
	}
	var ciliums ciliumv2.CiliumNetworkPolicyList
	if err := c.kube.List(context.Background(), &ciliums); err != nil {
		return err
	}
	for _, p := range ciliums.Items {
		showConditions(out, p.Namespace+"/"+p.Name, p.Status.Conditions)
	}
	var clusterwide ciliumv2.CiliumClusterwideNetworkPolicyList
	if err := c.kube.List(context.Background(), &clusterwide); err != nil {
		return err
	}
	for _, p := range clusterwide.Items {
		showConditions(out, p.Name, p.Status.Conditions)
	}
	return nil
}

func showConditions(out io.Writer, name string, conditions []metav1.Condition) {
	for _, cond := range conditions {
		_, _ = fmt.Fprintf(out, "%s: %s %s: %s\n", name, cond.Type, cond.Status, cond.Message)
	}
}

// runSources shows the status of a cluster's policy sources.
func runSources(w *world, out io.Writer, args []string) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	var list v1alpha1.PolicySourceList
	if err := c.kube.List(context.Background(), &list); err != nil {
		return err
	}
	for _, src := range list.Items {
		_, _ = fmt.Fprintf(out, "%s/%s: %d policies in force on %d of %d nodes, revision %s\n",
			src.Namespace, src.Name, len(src.Status.Inventory), src.Status.Nodes.Realized, src.Status.Nodes.Total, src.Status.LastAppliedRevision)
		for _, cond := range src.Status.Conditions {
			if cond.Type == "Ready" {
				_, _ = fmt.Fprintf(out, "  Ready %s: %s\n", cond.Status, cond.Message)
			}
		}
	}
	return nil
}
