// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// keyWithin takes cluster and kind off a record's key: what is left is the policy's key within its cluster.
func keyWithin(recordKey string) string {
	_, rest, _ := strings.Cut(recordKey, "/"+record.KindPolicy+"/")
	return rest
}

func (r reading) pods(ctx context.Context) error {
	var list corev1.PodList
	if err := r.list(ctx, "Pods", &list); err != nil {
		return err
	}
	for i := range list.Items {
		if p := &list.Items[i]; p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			r.out.Pods = append(r.out.Pods, PodOf(r.out.Name, p))
		}
	}
	return nil
}

// PodOf reads a Pod as policies see it.
func PodOf(cluster string, p *corev1.Pod) *world.Pod {
	out := &world.Pod{
		Cluster: cluster, Namespace: p.Namespace, Name: p.Name, Node: p.Spec.NodeName, ServiceAccount: p.Spec.ServiceAccountName,
		Labels: p.Labels, HostNetwork: p.Spec.HostNetwork,
	}
	out.Addresses = addresses(p.Status.PodIPs, func(a corev1.PodIP) string { return a.IP })
	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		for _, port := range c.Ports {
			out.Ports = append(out.Ports, world.Port{Name: port.Name, Proto: protocolOf(port.Protocol), Number: uint16(port.ContainerPort)})
		}
	}
	return out
}

func protocolOf(p corev1.Protocol) record.Protocol {
	switch p {
	case corev1.ProtocolUDP:
		return record.UDP
	case corev1.ProtocolSCTP:
		return record.SCTP
	case corev1.ProtocolTCP:
	}
	return record.TCP
}

// Definitions are services with their slices.
func Definitions(cluster string, services []corev1.Service, eps []discoveryv1.EndpointSlice) []service.Definition {
	var out []service.Definition
	for i := range services {
		s := &services[i]
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			continue
		}
		d := service.Definition{Cluster: cluster, Service: serviceOf(s)}
		for j := range eps {
			if e := &eps[j]; e.Namespace == s.Namespace && e.Labels[discoveryv1.LabelServiceName] == s.Name && e.AddressType != discoveryv1.AddressTypeFQDN {
				d.Slices = append(d.Slices, sliceOf(e))
			}
		}
		out = append(out, d)
	}
	return out
}

func serviceOf(s *corev1.Service) *record.Service {
	settings, _ := service.ParseAnnotations(s.Annotations)
	out := &record.Service{Namespace: s.Namespace, Name: s.Name, Global: settings.Global, Shared: settings.Shared, Headless: s.Spec.ClusterIP == corev1.ClusterIPNone, Selector: s.Spec.Selector}
	switch settings.Affinity {
	case recordv1.Affinity_AFFINITY_LOCAL:
		out.Affinity = record.AffinityLocal
	case recordv1.Affinity_AFFINITY_REMOTE:
		out.Affinity = record.AffinityRemote
	case recordv1.Affinity_AFFINITY_NONE:
	}
	same := func(text string) string { return text }
	out.ClusterIPs = addresses(s.Spec.ClusterIPs, same)
	out.External = slices.Concat(addresses(s.Spec.ExternalIPs, same),
		addresses(s.Status.LoadBalancer.Ingress, func(in corev1.LoadBalancerIngress) string { return in.IP }))
	for _, p := range s.Spec.Ports {
		out.Ports = append(out.Ports, record.Port{Name: p.Name, Protocol: protocolOf(p.Protocol), Number: uint16(p.Port), NodePort: uint16(p.NodePort)})
	}
	return out
}

func sliceOf(e *discoveryv1.EndpointSlice) *record.Slice {
	out := &record.Slice{Namespace: e.Namespace, Service: e.Labels[discoveryv1.LabelServiceName], Name: e.Name}
	for _, p := range e.Ports {
		if p.Port == nil {
			continue
		}
		port := record.Port{Protocol: record.TCP, Number: uint16(*p.Port)}
		if p.Name != nil {
			port.Name = *p.Name
		}
		if p.Protocol != nil {
			port.Protocol = protocolOf(*p.Protocol)
		}
		out.Ports = append(out.Ports, port)
	}
	for _, at := range e.Endpoints {
		if len(at.Addresses) == 0 {
			continue
		}
		a, err := netip.ParseAddr(at.Addresses[0])
		if err != nil {
			continue
		}
		b := record.Backend{Addr: a.Unmap()}
		b.Ready = at.Conditions.Ready == nil || *at.Conditions.Ready
		b.Serving = b.Ready
		if at.Conditions.Serving != nil {
			b.Serving = *at.Conditions.Serving
		}
		b.Terminating = at.Conditions.Terminating != nil && *at.Conditions.Terminating
		out.Backends = append(out.Backends, b)
	}
	return out
}

// policies of every kind.
func (r reading) policies(ctx context.Context) error {
	for _, kind := range v1alpha1.PolicyKinds() {
		err := eachPolicy(ctx, r, kind, func(p v1alpha1.PolicyObject) error { return r.policy(ctx, kind, p) })
		switch {
		case meta.IsNoMatchError(err), apierrors.IsForbidden(err):
			r.miss("read %s objects: %v", kind.Name, err)
		case err != nil:
			return fmt.Errorf("read %s objects: %w", kind.Name, err)
		}
	}
	return nil
}

// policy makes the record that the operator makes: agents report the hash of its content.
func (r reading) policy(ctx context.Context, kind v1alpha1.PolicyKind, o v1alpha1.PolicyObject) error {
	spec, err := json.Marshal(kind.Spec(o))
	if err != nil {
		return fmt.Errorf("write the spec of %s %s/%s: %w", kind.Name, o.GetNamespace(), o.GetName(), err)
	}
	rec := &record.Policy{
		PolicyKind: kind.Name, Namespace: o.GetNamespace(), Name: o.GetName(), Spec: spec, UID: string(o.GetUID()), Generation: o.GetGeneration(),
		Mode: r.out.ModeOf(o.GetNamespace()),
	}
	rec.Provenance = r.provenance(ctx, kind, o, rec)
	r.out.Policies = append(r.out.Policies, &world.Policy{Record: rec, Model: policy.Parse(rec)})
	return nil
}
