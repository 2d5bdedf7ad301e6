// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Small vocabularies, so that random policies meet random pods often.
var (
	genNamespaces = map[string]map[string]string{"a": {"team": "red"}, "b": {"team": "blue"}}
	genClusters   = map[string]map[string]string{"east": {"env": "prod"}, "west": {"env": "dev"}}
	genCIDRs      = map[string][]string{
		"0.0.0.0/0":     {"10.0.0.0/8", "192.0.2.0/24"},
		"::/0":          {"2001:db8::/32"},
		"10.0.0.0/8":    {"10.1.0.0/16", "10.1.2.0/24"},
		"10.1.0.0/16":   {"10.1.2.0/24", "10.1.2.3/32"},
		"192.0.2.0/24":  {"192.0.2.128/25"},
		"2001:db8::/32": {"2001:db8:1::/48"},
	}
	genAddresses = []string{"10.0.0.1", "10.1.0.1", "10.1.2.3", "10.1.2.4", "192.0.2.7", "192.0.2.200", "8.8.8.8", "2001:db8::1", "2001:db8:1::1", "2600::1"}
	genAccounts  = []string{"default", "robot", "deployer"}
	genPorts     = []int32{80, 81, 443, 8080, 8090, 65535}
)

func genSelector(t *rapid.T, name, key string, values ...string) *metav1.LabelSelector {
	switch rapid.IntRange(0, 5).Draw(t, name) {
	case 0, 1:
		return &metav1.LabelSelector{}
	case 2, 3:
		return &metav1.LabelSelector{MatchLabels: map[string]string{key: rapid.SampledFrom(values).Draw(t, name+" value")}}
	}
	e := metav1.LabelSelectorRequirement{Key: key, Operator: rapid.SampledFrom([]metav1.LabelSelectorOperator{
		metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist,
	}).Draw(t, name+" operator")}
	if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
		e.Values = rapid.SliceOfNDistinct(rapid.SampledFrom(values), 1, 2, rapid.ID[string]).Draw(t, name+" values")
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{e}}
}

func genPods(t *rapid.T, name string) *metav1.LabelSelector {
	s := genSelector(t, name, rapid.SampledFrom([]string{"app", "tier"}).Draw(t, name+" key"), "web", "db", "1")
	if rapid.IntRange(0, 5).Draw(t, name+" by a label that is left out") > 0 {
		return s
	}
	more := genSelector(t, name+" left out", rapid.SampledFrom(leftOut).Draw(t, name+" left out key"), "0", "1")
	s.MatchExpressions = append(s.MatchExpressions, more.MatchExpressions...)
	if len(more.MatchLabels) > 0 {
		if s.MatchLabels == nil {
			s.MatchLabels = map[string]string{}
		}
		maps.Copy(s.MatchLabels, more.MatchLabels)
	}
	return s
}

func genNS(t *rapid.T, name string) *metav1.LabelSelector {
	return genSelector(t, name, "team", "red", "blue")
}

func genClusterSelector(t *rapid.T, name string) *metav1.LabelSelector {
	return genSelector(t, name, "env", "prod", "dev")
}

func maybe[T any](t *rapid.T, name string, gen func(*rapid.T, string) *T) *T {
	if rapid.Bool().Draw(t, name+"?") {
		return gen(t, name)
	}
	return nil
}

func genCIDR(t *rapid.T) (cidr string, except []string) {
	keys := []string{"0.0.0.0/0", "::/0", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "2001:db8::/32"}
	cidr = rapid.SampledFrom(keys).Draw(t, "cidr")
	if rapid.Bool().Draw(t, "except?") {
		except = rapid.SliceOfNDistinct(rapid.SampledFrom(genCIDRs[cidr]), 1, -1, rapid.ID[string]).Draw(t, "except")
	}
	return cidr, except
}

func genNetworkPeer(t *rapid.T) networkingv1.NetworkPolicyPeer {
	if rapid.IntRange(0, 2).Draw(t, "block?") == 0 {
		cidr, except := genCIDR(t)
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
	}
	p := networkingv1.NetworkPolicyPeer{PodSelector: maybe(t, "pods", genPods), NamespaceSelector: maybe(t, "namespaces", genNS)}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		p.PodSelector = genPods(t, "pods")
	}
	return p
}

func genProtocol(t *rapid.T) string {
	return rapid.SampledFrom([]string{"TCP", "UDP", "SCTP"}).Draw(t, "protocol")
}

func genNetworkPort(t *rapid.T) networkingv1.NetworkPolicyPort {
	proto := corev1.Protocol(genProtocol(t))
	out := networkingv1.NetworkPolicyPort{Protocol: &proto}
	switch rapid.IntRange(0, 3).Draw(t, "port kind") {
	case 1:
		v := intstr.FromString(rapid.SampledFrom([]string{"http", "admin"}).Draw(t, "name"))
		out.Port = &v
	case 2:
		v := intstr.FromInt32(rapid.SampledFrom(genPorts).Draw(t, "port"))
		out.Port = &v
	case 3:
		from := rapid.Int32Range(1, 65535).Draw(t, "from")
		to := rapid.Int32Range(from, 65535).Draw(t, "to")
		v := intstr.FromInt32(from)
		out.Port, out.EndPort = &v, &to
	}
	return out
}

func genNetworkPolicy(t *rapid.T) *networkingv1.NetworkPolicySpec {
	spec := &networkingv1.NetworkPolicySpec{PodSelector: *genPods(t, "subjects")}
	peers := rapid.SliceOfN(rapid.Custom(genNetworkPeer), 0, 2)
	ports := rapid.SliceOfN(rapid.Custom(genNetworkPort), 0, 2)
	for range rapid.IntRange(0, 2).Draw(t, "ingress rules") {
		spec.Ingress = append(spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: peers.Draw(t, "from"), Ports: ports.Draw(t, "ports")})
	}
	for range rapid.IntRange(0, 2).Draw(t, "egress rules") {
		spec.Egress = append(spec.Egress, networkingv1.NetworkPolicyEgressRule{To: peers.Draw(t, "to"), Ports: ports.Draw(t, "ports")})
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	spec.PolicyTypes = rapid.SliceOfNDistinct(rapid.SampledFrom(types), 0, 2, rapid.ID[networkingv1.PolicyType]).Draw(t, "types")
	return spec
}

func genMeshPeer(t *rapid.T) v1alpha1.MeshPolicyPeer {
	if rapid.IntRange(0, 2).Draw(t, "cidr?") == 0 {
		cidr, except := genCIDR(t)
		return v1alpha1.MeshPolicyPeer{CIDR: cidr, Except: except}
	}
	switch rapid.IntRange(0, 6).Draw(t, "no pods?") {
	case 2:
		return v1alpha1.MeshPolicyPeer{Services: rapid.SliceOfN(rapid.Custom(genMeshService), 1, 2).Draw(t, "services")}
	case 0:
		return v1alpha1.MeshPolicyPeer{NodeSelector: genNodes(t)}
	case 1:
		all := []v1alpha1.PolicyEntity{v1alpha1.PolicyEntityWorld, v1alpha1.PolicyEntityNodes}
		return v1alpha1.MeshPolicyPeer{Entities: rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 2, rapid.ID[v1alpha1.PolicyEntity]).Draw(t, "entities")}
	}
	p := v1alpha1.MeshPolicyPeer{
		ClusterSelector:   maybe(t, "clusters", genClusterSelector),
		NamespaceSelector: maybe(t, "namespaces", genNS),
		PodSelector:       maybe(t, "pods", genPods),
	}
	if rapid.IntRange(0, 3).Draw(t, "accounts?") == 0 {
		p.ServiceAccounts = rapid.SliceOfNDistinct(rapid.SampledFrom(genAccounts), 1, 2, rapid.ID[string]).Draw(t, "accounts")
	}
	if p.ClusterSelector == nil && p.NamespaceSelector == nil && p.PodSelector == nil && p.ServiceAccounts == nil {
		p.PodSelector = genPods(t, "pods")
	}
	return p
}

func genMeshPort(t *rapid.T) v1alpha1.MeshPolicyPort {
	out := v1alpha1.MeshPolicyPort{Protocol: rapid.SampledFrom([]string{"", "TCP", "UDP", "SCTP"}).Draw(t, "protocol")}
	switch rapid.IntRange(0, 3).Draw(t, "port kind") {
	case 1:
		out.Name = rapid.SampledFrom([]string{"http", "admin"}).Draw(t, "name")
	case 2:
		v := rapid.SampledFrom(genPorts).Draw(t, "port")
		out.Port = &v
	case 3:
		from := rapid.Int32Range(1, 65535).Draw(t, "from")
		to := rapid.Int32Range(from, 65535).Draw(t, "to")
		out.Port, out.EndPort = &from, &to
	}
	return out
}

// genICMP makes messages of few types, some of them of one family only.
func genICMP(t *rapid.T) v1alpha1.MeshPolicyICMP {
	out := v1alpha1.MeshPolicyICMP{Family: rapid.SampledFrom([]string{"", "IPv4", "IPv6"}).Draw(t, "family")}
	var typ intstr.IntOrString
	switch kind := rapid.IntRange(0, 3).Draw(t, "type kind"); {
	case kind == 0:
		return out
	case kind == 1 && out.Family != "":
		typ = intstr.FromInt32(rapid.SampledFrom(map[string][]int32{"IPv4": {0, 8, 13, 255}, "IPv6": {128, 129, 139, 255}}[out.Family]).Draw(t, "type"))
	default:
		typ = intstr.FromString(rapid.SampledFrom(map[string][]string{
			"": {"EchoRequest", "EchoReply", "TimestampRequest", "NodeInformationQuery"}, "IPv4": {"EchoRequest", "TimestampRequest"}, "IPv6": {"EchoReply", "NodeInformationQuery"},
		}[out.Family]).Draw(t, "type"))
	}
	out.Type = &typ
	return out
}

func genMeshDirection(t *rapid.T, name string) *v1alpha1.MeshPolicyDirection {
	rules := func(what string) []v1alpha1.MeshPolicyRule {
		var out []v1alpha1.MeshPolicyRule
		for range rapid.IntRange(0, 2).Draw(t, name+" "+what) {
			out = append(out, v1alpha1.MeshPolicyRule{
				Peers: rapid.SliceOfN(rapid.Custom(genMeshPeer), 0, 2).Draw(t, "peers"),
				Ports: rapid.SliceOfN(rapid.Custom(genMeshPort), 0, 2).Draw(t, "ports"),
			})
			if rapid.IntRange(0, 3).Draw(t, "icmp?") == 0 {
				out[len(out)-1].ICMP = rapid.SliceOfN(rapid.Custom(genICMP), 1, 2).Draw(t, "icmp")
			}
		}
		return out
	}
	return &v1alpha1.MeshPolicyDirection{
		Allow: rules("allow"), Deny: rules("deny"),
		DefaultAction: rapid.SampledFrom([]string{"", "Deny", "Allow"}).Draw(t, "default"),
	}
}

func genMeshPolicy(t *rapid.T, clusterScoped bool) *v1alpha1.ClusterMeshNetworkPolicySpec {
	spec := &v1alpha1.ClusterMeshNetworkPolicySpec{MeshNetworkPolicySpec: v1alpha1.MeshNetworkPolicySpec{
		PodSelector:     *genPods(t, "subjects"),
		ClusterSelector: maybe(t, "subject clusters", genClusterSelector),
		Ingress:         maybe(t, "ingress", genMeshDirection),
		Egress:          maybe(t, "egress", genMeshDirection),
		Mode:            rapid.SampledFrom([]v1alpha1.PolicyMode{"", v1alpha1.PolicyEnforce, v1alpha1.PolicyAudit}).Draw(t, "mode"),
	}}
	if spec.Ingress == nil && spec.Egress == nil {
		spec.Ingress = genMeshDirection(t, "ingress")
	}
	if clusterScoped {
		spec.NamespaceSelector = maybe(t, "subject namespaces", genNS)
		genTier(t, spec)
	}
	return spec
}

// scene is a random mesh in both forms: parsed for the engine, as API objects for the oracle.
type scene struct {
	in     World
	oracle oracle
	pods   map[uint32]*oraclePod
}

var allKinds = []string{KindNetworkPolicy, KindMeshNetworkPolicy, KindClusterMeshNetworkPolicy, KindClusterNetworkPolicy, KindCiliumNetworkPolicy, KindCiliumClusterwideNetworkPolicy}

func genScene(t *rapid.T, networkOnly bool) *scene {
	s := &scene{
		in:     World{Cluster: "east", Clusters: genClusters, Identities: map[uint32]map[string]string{}, NamedPorts: map[uint32]map[string][]uint16{}, Nodes: map[string]Node{}, Node: "n0"},
		oracle: oracle{local: "east", clusters: genClusters},
		pods:   map[uint32]*oraclePod{},
	}
	s.oracle.audited = rapid.IntRange(0, 7).Draw(t, "cluster audited") == 0
	for i := range rapid.IntRange(2, 8).Draw(t, "pods") {
		s.addPod(t, i)
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "nodes") {
		n := genNode(t)
		s.in.Nodes[fmt.Sprintf("n%d", i)] = n
		s.oracle.nodes = append(s.oracle.nodes, n)
		if i == 0 {
			s.oracle.node = &n
		}
	}
	s.in.Services = map[ServiceName]map[string]Service{}
	for _, name := range genServiceNames {
		s.in.Services[name] = genServices(t)
	}
	s.oracle.services = s.in.Services
	for i := range rapid.IntRange(1, 5).Draw(t, "policies") {
		kind := KindNetworkPolicy
		if !networkOnly {
			kind = rapid.SampledFrom(allKinds).Draw(t, "kind")
		}
		s.addPolicy(t, kind, i)
	}
	return s
}

func (s *scene) addPod(t *rapid.T, i int) {
	p := &oraclePod{
		cluster:   rapid.SampledFrom([]string{"east", "east", "west"}).Draw(t, "cluster"),
		namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"),
		account:   rapid.SampledFrom(genAccounts).Draw(t, "account"),
		addr:      netip.MustParseAddr(rapid.SampledFrom(genAddresses).Draw(t, "address")),
		labels:    map[string]string{}, named: map[string][]uint16{},
	}
	p.namespaceLabels = genNamespaces[p.namespace]
	if v := rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "app"); v != "" {
		p.labels["app"] = v
	}
	if v := rapid.SampledFrom([]string{"", "1", "web"}).Draw(t, "tier"); v != "" {
		p.labels["tier"] = v
	}
	for _, key := range leftOut {
		if v := rapid.SampledFrom([]string{"", "0", "1"}).Draw(t, key); v != "" {
			p.labels[key] = v
		}
	}
	for _, name := range []string{"http/TCP", "http/UDP", "admin/TCP"} {
		for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(genPorts), 0, 2, rapid.ID[int32]).Draw(t, name) {
			p.named[name] = append(p.named[name], uint16(n))
		}
	}
	cluster := uint8(1)
	if p.cluster == "west" {
		cluster = 2
	}
	id := identity.Of(cluster, uint16(identity.FirstLocal+i))
	s.pods[id] = p
	s.oracle.all = append(s.oracle.all, p)
	s.in.Identities[id] = identity.PodLabels(p.cluster, p.namespace, p.account, p.labels, p.namespaceLabels)
	s.in.NamedPorts[id] = p.named
}

func (s *scene) addPolicy(t *rapid.T, kind string, i int) {
	rec := &record.Policy{PolicyKind: kind, Name: fmt.Sprintf("p%d", i)}
	if kind == KindNetworkPolicy || kind == KindMeshNetworkPolicy || kind == KindCiliumNetworkPolicy {
		rec.Namespace = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "policy namespace")
	}
	rec.Mode = record.Mode{ByNamespace: rec.Namespace != "" && rapid.IntRange(0, 3).Draw(t, "audited") == 0, ByCluster: s.oracle.audited}
	o := oraclePolicy{namespace: rec.Namespace, name: rec.Name, audited: rec.Mode.Audit()}
	var spec any
	switch kind {
	case KindNetworkPolicy:
		o.network = genNetworkPolicy(t)
		spec = o.network
	case KindMeshNetworkPolicy:
		o.mesh = genMeshPolicy(t, false)
		spec = o.mesh.MeshNetworkPolicySpec
	case KindCiliumNetworkPolicy, KindCiliumClusterwideNetworkPolicy:
		o.cilium = genCilium(t, kind == KindCiliumNetworkPolicy)
		spec = ciliumObject(t, o.cilium)
	case KindClusterNetworkPolicy:
		o.cluster = genClusterPolicy(t)
		spec = o.cluster
	default:
		o.mesh = genMeshPolicy(t, true)
		spec = o.mesh
	}
	var err error
	if rec.Spec, err = json.Marshal(spec); err != nil {
		t.Fatal(err)
	}
	s.in.Policies = append(s.in.Policies, Parse(rec))
	s.oracle.policies = append(s.oracle.policies, o)
}
