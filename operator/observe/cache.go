// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// CacheOptions make the manager's cache keep only what somebody here reads: a pod shrinks to a tenth.
func CacheOptions() cache.Options {
	return cache.Options{DefaultTransform: Strip}
}

// Strip takes from an object what nobody here reads. It is called on each object before it enters the cache.
func Strip(in any) (any, error) {
	if o, ok := in.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	switch o := in.(type) {
	case *corev1.Pod:
		stripPod(o)
	case *unstructured.Unstructured:
		stripOwner(o)
	case *corev1.Node:
		o.Annotations = nil
		o.Spec = corev1.NodeSpec{PodCIDR: o.Spec.PodCIDR, PodCIDRs: o.Spec.PodCIDRs}
		o.Status = corev1.NodeStatus{Addresses: o.Status.Addresses}
	}
	return in, nil
}

func stripPod(p *corev1.Pod) {
	p.ObjectMeta = metav1.ObjectMeta{
		Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels,
	}
	p.Spec = corev1.PodSpec{
		NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork, ServiceAccountName: p.Spec.ServiceAccountName,
		Containers: portsOnly(p.Spec.Containers), InitContainers: portsOnly(p.Spec.InitContainers),
	}
	p.Status = corev1.PodStatus{Phase: p.Status.Phase, PodIPs: p.Status.PodIPs}
}

// portsOnly keeps containers that name a port, for policies that name ports.
func portsOnly(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		var ports []corev1.ContainerPort
		for _, p := range c.Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if len(ports) > 0 {
			kept = append(kept, corev1.Container{Ports: ports})
		}
	}
	return kept
}
