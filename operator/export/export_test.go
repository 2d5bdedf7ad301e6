// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

func testMesh() *v1alpha1.ClusterMeshSpec {
	return &v1alpha1.ClusterMeshSpec{
		MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"},
		Services: v1alpha1.ServicesSpec{DefaultExport: "Annotated"},
	}
}

func testPod(name, ip string, labels map[string]string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labels},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "default"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if ip != "" {
		p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	}
	return p
}

func testService(name string, annotations map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: annotations},
		Spec:       corev1.ServiceSpec{ClusterIPs: []string{"10.101.0.9"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
}

func testSlice(name, service string, addrs ...string) *discoveryv1.EndpointSlice {
	eps := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
	}
	for _, addr := range addrs {
		eps.Endpoints = append(eps.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}, NodeName: ptr.To("n1")})
	}
	return eps
}

// views keeps what a receiver of every delta has.
type views struct {
	local     map[string]*recordv1.Record
	published record.Set
	warnings  []string
}

func newViews() *views {
	return &views{local: map[string]*recordv1.Record{}, published: record.Set{}}
}

func (v *views) take(d Delta) {
	for _, c := range d.Local {
		if c.Record == nil {
			delete(v.local, c.Key)
			continue
		}
		v.local[c.Key] = c.Record
	}
	v.published.Apply(d.Published)
	for _, w := range d.Warnings {
		v.warnings = append(v.warnings, w.Kind+" "+w.Namespace+"/"+w.Name+": "+w.Message)
	}
}

func (v *views) localKeys() []string {
	var keys []string
	for k := range v.local {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (v *views) publishedKeys() []string {
	var keys []string
	for k := range v.published {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func TestTwoViews(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	s.SetNamespace("shop", map[string]string{"team": "a"}, false)
	s.SetNode("n1", &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}},
		Spec:       corev1.NodeSpec{PodCIDRs: []string{"10.1.1.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n1"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.1"},
		}},
	})
	s.SetService("shop", "local", testService("local", nil))
	s.SetSlice("shop", "local-1", testSlice("local-1", "local", "10.1.1.5"))
	s.SetService("shop", "world", testService("world", map[string]string{v1alpha1.AnnotationGlobal: "true"}))
	s.SetSlice("shop", "world-1", testSlice("world-1", "world", "10.1.1.5"))
	s.SetService("shop", "taker", testService("taker", map[string]string{v1alpha1.AnnotationGlobal: "true", v1alpha1.AnnotationShared: "false"}))
	s.SetSlice("shop", "taker-1", testSlice("taker-1", "taker", "10.1.1.5"))
	s.SetSlice("shop", "orphan-1", testSlice("orphan-1", "nobody", "10.1.1.5"))
	s.SetPolicy(policyOf(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny"}}))
	v.take(s.Flush())

	want := []string{
		"east/cluster", "east/nodes/n1", "east/policies/NetworkPolicy/shop/deny",
		"east/services/shop/local", "east/services/shop/taker", "east/services/shop/world",
		"east/slices/shop/local-1", "east/slices/shop/taker-1", "east/slices/shop/world-1",
	}
	if diff := cmp.Diff(want, v.localKeys()); diff != "" {
		t.Errorf("local view (-want +got):\n%s", diff)
	}
	want = []string{ // no policy: no other cluster takes one
		"east/cluster", "east/nodes/n1",
		"east/services/shop/taker", "east/services/shop/world", "east/slices/shop/world-1",
	}
	if diff := cmp.Diff(want, v.publishedKeys()); diff != "" {
		t.Errorf("published view (-want +got):\n%s", diff)
	}
	node := &recordv1.Node{Name: "n1", Addresses: []string{"192.0.2.1"}, PodCidrs: []string{"10.1.1.0/24"}, Zone: "z1", Labels: map[string]string{corev1.LabelTopologyZone: "z1"}}
	if diff := cmp.Diff(node, v.local["east/nodes/n1"].GetNode(), protocmp.Transform()); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
	if shared, err := record.Unmarshal(v.published["east/nodes/n1"]); err != nil || shared.GetNode().GetZone() != "z1" || len(shared.GetNode().GetLabels()) > 0 {
		t.Errorf("other clusters get of the node: %v, %v", shared, err)
	}

	// A service that stops being global leaves the shared etcd, with its slices, and nothing else moves.
	s.SetService("shop", "world", testService("world", nil))
	d := s.Flush()
	if diff := cmp.Diff([]string{"east/services/shop/world", "east/slices/shop/world-1"}, d.Published.Delete); diff != "" || len(d.Published.Put) > 0 {
		t.Errorf("published after the annotation went: %v (-want +got):\n%s", d.Published.Put, diff)
	}
	if len(d.Local) != 1 || d.Local[0].Key != "east/services/shop/world" {
		t.Errorf("local after the annotation went: %v", d.Local)
	}
}

func TestEndpointNeedsNamespaceIdentityAndAddress(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	const key = "east/endpoints/shop/a"
	has := func(when string, want bool) {
		t.Helper()
		v.take(s.Flush())
		if _, got := v.local[key]; got != want {
			t.Fatalf("%s: endpoint there: %v, want %v", when, got, want)
		}
	}
	s.SetPod("shop", "a", testPod("a", "", map[string]string{"app": "a"}))
	has("nothing known", false)
	if got := s.Unnumbered(); len(got) != 0 {
		t.Fatalf("label sets before the namespace is known: %v", got)
	}
	s.SetNamespace("shop", nil, false)
	has("no identity, no address", false)
	want := s.Unnumbered()
	if len(want) != 1 || want[0]["app"] != "a" || want[0][v1alpha1.LabelNamespace] != "shop" || want[0][v1alpha1.LabelCluster] != "east" {
		t.Fatalf("Unnumbered = %v", want)
	}
	s.SetIdentity(1<<16|256, want[0])
	has("identity, no address", false)
	s.SetPod("shop", "a", testPod("a", "10.1.1.7", map[string]string{"app": "a"}))
	has("address", true)
	if got := v.local[key].GetEndpoint().GetIdentity(); got != 1<<16|256 {
		t.Fatalf("identity = %d", got)
	}
	if !s.InUse(1<<16|256) || len(s.Unnumbered()) != 0 {
		t.Fatal("identity should be in use and nothing unnumbered")
	}

	// Another label is another identity: until it has a number, the pod must not go by the old one.
	s.SetPod("shop", "a", testPod("a", "10.1.1.7", map[string]string{"app": "b"}))
	has("other labels", false)
	if s.InUse(1<<16 | 256) {
		t.Fatal("the old identity is in use by nobody")
	}
	s.SetIdentity(1<<16|257, s.Unnumbered()[0])
	has("numbered", true)

	// A namespace's labels are part of its pods' identities.
	s.SetNamespace("shop", map[string]string{"team": "a"}, false)
	has("namespace relabelled", false)
	s.SetNamespace("shop", nil, false)
	has("namespace as before", true)

	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		done := testPod("a", "10.1.1.7", map[string]string{"app": "b"})
		done.Status.Phase = phase
		s.SetPod("shop", "a", done)
		has(string(phase), false)
	}
	host := testPod("a", "10.1.1.7", map[string]string{"app": "b"})
	host.Spec.HostNetwork = true
	s.SetPod("shop", "a", host)
	has("host network", false)
}

func TestEqualLabelSetsGoByTheLowerNumber(t *testing.T) {
	for _, order := range [][]uint32{{256, 300}, {300, 256}} {
		s := NewState("v1")
		s.SetMesh(testMesh())
		s.SetNamespace("shop", nil, false)
		s.SetPod("shop", "a", testPod("a", "10.1.1.7", nil))
		labels := s.Unnumbered()[0]
		for _, local := range order {
			s.SetIdentity(1<<16|local, labels)
		}
		v := newViews()
		v.take(s.Flush())
		if got := v.local["east/endpoints/shop/a"].GetEndpoint().GetIdentity(); got != 1<<16|256 {
			t.Errorf("order %v: identity %d", order, got)
		}
		if s.InUse(1<<16 | 300) {
			t.Errorf("order %v: the higher number is in use", order)
		}
	}
}

func TestWhatOthersWouldRefuseIsNotPublishedAndSaid(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	s.SetNamespace("shop", nil, false)
	s.SetPod("shop", "a", testPod("a", "172.16.0.1", nil)) // not in podCIDRs
	s.SetIdentity(1<<16|256, s.Unnumbered()[0])
	s.SetService("shop", "w", testService("w", map[string]string{v1alpha1.AnnotationGlobal: "yes"}))
	v.take(s.Flush())
	if _, ok := v.local["east/endpoints/shop/a"]; !ok {
		t.Error("agents of this cluster should know the pod all the same")
	}
	if _, ok := v.published["east/endpoints/shop/a"]; ok {
		t.Error("an address outside of podCIDRs was published")
	}
	said := strings.Join(v.warnings, "\n")
	for _, want := range []string{"Pod shop/a: not published to other clusters: AddressOutsideClaim", "Service shop/w: "} {
		if !strings.Contains(said, want) {
			t.Errorf("no warning %q in:\n%s", want, said)
		}
	}
	s.SetPod("shop", "a", testPod("a", "172.16.0.1", nil))
	if d := s.Flush(); len(d.Warnings) > 0 {
		t.Errorf("said again without news: %v", d.Warnings)
	}
}

func TestRenamedClusterLeavesNothingBehind(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	s.SetNode("n1", &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}},
	}})
	v.take(s.Flush())
	other := testMesh()
	other.ClusterName, other.ClusterID = "north", 3
	s.SetMesh(other)
	v.take(s.Flush())
	for _, keys := range [][]string{v.localKeys(), v.publishedKeys()} {
		if diff := cmp.Diff([]string{"north/cluster", "north/nodes/n1"}, keys); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestServiceRecord(t *testing.T) {
	svc := func(change func(*corev1.Service)) *corev1.Service {
		s := testService("s", map[string]string{v1alpha1.AnnotationGlobal: "true"})
		change(s)
		return s
	}
	for _, tt := range []struct {
		name   string
		svc    *corev1.Service
		export bool
		want   *recordv1.Service
	}{
		{"external name", svc(func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }), true, nil},
		{"no address yet", svc(func(s *corev1.Service) { s.Spec.ClusterIPs = nil }), true, nil},
		{"headless", svc(func(s *corev1.Service) { s.Spec.ClusterIPs = []string{"None"} }), true, &recordv1.Service{
			Namespace: "shop", Name: "s", Headless: true, Global: true, Shared: true, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
		}},
		{"nothing is exported", svc(func(*corev1.Service) {}), false, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"}, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
		}},
		{"with a selector", svc(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "s"} }), false, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"}, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, Selector: map[string]string{"app": "s"},
		}},
		{"sticky", svc(func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }), true, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"}, Global: true, Shared: true, AffinityTimeoutSeconds: 10800,
			Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
		}},
		{"only some may reach it from outside", svc(func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"} }), false, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"}, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, ExternalByProxy: true,
		}},
		{"what comes from outside stays on its node", svc(func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }), false, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"}, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}}, ExternalByProxy: true,
		}},
		{"reached from outside", svc(func(s *corev1.Service) {
			proxy := corev1.LoadBalancerIPModeProxy
			s.Spec.Ports[0].NodePort = 30080
			s.Spec.ExternalIPs = []string{"203.0.113.9", "203.0.113.7"}
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{
				{IP: "203.0.113.7"}, {Hostname: "lb.example"}, {IP: "198.51.100.1"}, {IP: "198.51.100.2", IPMode: &proxy},
			}
		}), false, &recordv1.Service{
			Namespace: "shop", Name: "s", ClusterIps: []string{"10.101.0.9"},
			ExternalAddresses: []string{"198.51.100.1", "203.0.113.7", "203.0.113.9"},
			Ports:             []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80, NodePort: 30080}},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rec, _ := ServiceRecord("east", tt.svc, tt.export)
			if diff := cmp.Diff(tt.want, rec.GetService(), protocmp.Transform()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestBackendConditions(t *testing.T) {
	for _, tt := range []struct {
		c    discoveryv1.EndpointConditions
		want string
	}{
		{discoveryv1.EndpointConditions{}, "ready serving"},
		{discoveryv1.EndpointConditions{Ready: ptr.To(false)}, ""},
		{discoveryv1.EndpointConditions{Ready: ptr.To(false), Serving: ptr.To(true), Terminating: ptr.To(true)}, "serving terminating"},
	} {
		b := backend(discoveryv1.Endpoint{Conditions: tt.c})
		var got []string
		for _, f := range []struct {
			set  bool
			name string
		}{{b.Ready, "ready"}, {b.Serving, "serving"}, {b.Terminating, "terminating"}} {
			if f.set {
				got = append(got, f.name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %v, want %q", fmt.Sprint(tt.c), got, tt.want)
		}
	}
}

func policyOf(o v1alpha1.PolicyObject) Policy {
	kind, _ := v1alpha1.PolicyKindOf(o)
	return PolicyOf(kind, o)
}

// Two numbers may have one label set. When the one that counts is deleted the other does.
func TestATwinTakesThePlaceOfADeletedIdentity(t *testing.T) {
	s := NewState("test")
	s.SetMesh(&v1alpha1.ClusterMeshSpec{MeshID: "m", ClusterName: "east", ClusterID: 1, PodCIDRs: []string{"10.1.0.0/16"}})
	s.SetNamespace("shop", nil, false)
	s.SetPod("shop", "a", &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}})
	labels := s.Unnumbered()[0]
	s.SetIdentity(1<<16|256, labels)
	s.SetIdentity(1<<16|257, labels)
	s.SetIdentity(1<<16|256, nil)
	if left := s.Unnumbered(); len(left) > 0 || !s.InUse(1<<16|257) {
		t.Errorf("without a number: %v", left)
	}
}

// The own cluster's agents know where its nodes lead to pods; nobody else has to.
func TestHostPortsAreForTheOwnCluster(t *testing.T) {
	s, v := NewState("v1"), newViews()
	s.SetMesh(testMesh())
	s.SetNamespace("shop", nil, false)
	pod := testPod("a", "10.1.1.7", map[string]string{"app": "a"})
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{
		{ContainerPort: 80},
		{ContainerPort: 443, HostPort: 8443},
		{ContainerPort: 53, HostPort: 53, Protocol: corev1.ProtocolUDP, HostIP: "192.0.2.1"},
		{ContainerPort: 9090, HostPort: 9090, HostIP: "127.0.0.1"},
		{ContainerPort: 81, HostPort: 81, HostIP: "::"},
	}}}
	s.SetPod("shop", "a", pod)
	s.SetIdentity(1<<16|256, s.Unnumbered()[0])
	v.take(s.Flush())
	const key = "east/endpoints/shop/a"
	want := []*recordv1.HostPort{
		{Protocol: "TCP", Port: 8443, Target: 443}, {Protocol: "UDP", Port: 53, Target: 53}, {Protocol: "TCP", Port: 81, Target: 81},
	}
	if got := v.local[key].GetEndpoint().GetHostPorts(); !slices.EqualFunc(got, want, func(a, b *recordv1.HostPort) bool { return proto.Equal(a, b) }) {
		t.Errorf("host ports are %v, want %v", got, want)
	}
	shared := &recordv1.Record{}
	if err := proto.Unmarshal(v.published[key], shared); err != nil || shared.GetEndpoint().GetNode() == "" || len(shared.GetEndpoint().GetHostPorts()) > 0 {
		t.Errorf("others get %v (%v)", shared, err)
	}
}
