// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/hack/lab/instance"
)

const (
	east, west  = "east", "west"
	serviceName = "backend"
	sliceName   = "backend-manual"
	port        = 80
)

// workload is the service whose endpoint moves.
type workload struct {
	namespace  string
	east, west client.Client
	frontend   netip.AddrPort // of the service in east
	pods       netip.Prefix   // west's
	created    bool
}

func newWorkload(ctx context.Context, lab *instance.Lab) (*workload, error) {
	w := &workload{namespace: fmt.Sprintf("bench-%d", os.Getpid())}
	var err error
	if w.east, err = clientOf(lab, east); err != nil {
		return nil, err
	}
	if w.west, err = clientOf(lab, west); err != nil {
		return nil, err
	}
	cluster, err := lab.Topology.Cluster(west)
	if err != nil {
		return nil, err
	}
	w.pods = cluster.Pods4
	for _, c := range []client.Client{w.east, w.west} {
		if err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}); err != nil {
			return w.failed(fmt.Errorf("create namespace: %w", err))
		}
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: w.namespace, Name: serviceName, Annotations: map[string]string{v1alpha1.AnnotationGlobal: "true"},
			},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: port, Protocol: corev1.ProtocolTCP}}},
		}
		if err := c.Create(ctx, svc); err != nil {
			return w.failed(fmt.Errorf("create service: %w", err))
		}
		if c == w.east {
			ip, err := netip.ParseAddr(svc.Spec.ClusterIP)
			if err != nil {
				return w.failed(fmt.Errorf("the service's address: %w", err))
			}
			w.frontend = netip.AddrPortFrom(ip, port)
		}
	}
	return w, nil
}

func (w *workload) failed(err error) (*workload, error) {
	w.remove()
	return nil, err
}

func clientOf(lab *instance.Lab, cluster string) (client.Client, error) {
	path, err := lab.Kubeconfig(cluster)
	if err != nil {
		return nil, err
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of %s: %w", cluster, err)
	}
	c, err := client.New(cfg, client.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cluster, err)
	}
	return c, nil
}

// address of a round: no pod has it, and it is not the last round's.
func (w *workload) address(round int) netip.Addr {
	a := w.pods.Addr().As4()
	return netip.AddrFrom4([4]byte{a[0], a[1], 250, byte(1 + round%250)})
}

// move gives the service's endpoint another address, and says when the API server had answered.
func (w *workload) move(ctx context.Context, address netip.Addr) (time.Time, error) {
	name, ready := "http", true
	p, protocol := int32(port), corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.namespace, Name: sliceName, Labels: map[string]string{discoveryv1.LabelServiceName: serviceName},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &p, Protocol: &protocol}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{address.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}},
	}
	var err error
	if w.created {
		err = w.west.Update(ctx, slice) // without a resourceVersion: whoever wrote last
	} else {
		err = w.west.Create(ctx, slice)
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("write endpoint slice: %w", err)
	}
	w.created = true
	return time.Now(), nil
}

// remove takes the namespaces away, also after an interrupt.
func (w *workload) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, c := range []client.Client{w.east, w.west} {
		err := c.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}})
		if client.IgnoreNotFound(err) != nil {
			fmt.Fprintf(os.Stderr, "namespace %s stays: %v\n", w.namespace, err)
		}
	}
}
