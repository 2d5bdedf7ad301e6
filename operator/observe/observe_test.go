// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/operator/export"
)

func TestStripKeepsWhatRecordsAreMadeFrom(t *testing.T) {
	pod := func() *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: "a", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"big": "text"},
				ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "x"}},
			},
			Spec: corev1.PodSpec{
				NodeName: "n1", ServiceAccountName: "sa",
				Volumes:        []corev1.Volume{{Name: "v"}},
				InitContainers: []corev1.Container{{Name: "i", Image: "x", Ports: []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9, Protocol: corev1.ProtocolUDP}}}},
				Containers:     []corev1.Container{{Name: "c", Env: []corev1.EnvVar{{Name: "E"}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}, {ContainerPort: 81}}}, {Name: "none"}},
			},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.1.0.1"}}, Conditions: []corev1.PodCondition{{Type: "Ready"}}},
		}
	}
	out, err := Strip(pod())
	if err != nil {
		t.Fatal(err)
	}
	p := out.(*corev1.Pod)
	if p.Annotations != nil || p.ManagedFields != nil || p.Spec.Volumes != nil || p.Status.Conditions != nil || len(p.Spec.Containers) != 1 || p.Spec.Containers[0].Env != nil {
		t.Errorf("still there: %+v", p)
	}
	if !export.IsEndpoint(p) {
		t.Error("a stripped pod is no endpoint any more")
	}
	want, got := export.EndpointRecord("east", pod(), 7), export.EndpointRecord("east", p, 7)
	if diff := cmp.Diff(want.GetEndpoint().String(), got.GetEndpoint().String()); diff != "" {
		t.Errorf("endpoint of a stripped pod (-want +got):\n%s", diff)
	}

	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z"}, Annotations: map[string]string{"x": "y"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.1.0.0/24"}, Taints: []corev1.Taint{{Key: "t"}}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}, Images: []corev1.ContainerImage{{}}},
	}
	before := export.NodeRecord("east", node.DeepCopy(), nil)
	out, err = Strip(node)
	if err != nil {
		t.Fatal(err)
	}
	if n := out.(*corev1.Node); n.Status.Images != nil || n.Annotations != nil || n.Spec.Taints != nil {
		t.Errorf("still there: %+v", n)
	}
	if diff := cmp.Diff(before.GetNode().String(), export.NodeRecord("east", out.(*corev1.Node), nil).GetNode().String()); diff != "" {
		t.Errorf("record of a stripped node (-want +got):\n%s", diff)
	}
}
