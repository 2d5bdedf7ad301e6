// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files; only for new kinds or fields, never to make a changed encoding pass")

func prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

var east = Claim{
	Name: "east", ID: 1, MeshID: "lab", PodCIDRs: prefixes("10.1.0.0/16", "fd01::/48"),
	ExportNamespaces: []string{"shop", "default"}, MeshPodCIDRs: prefixes("10.2.0.0/16"),
}

var wireGuardKey = base64.StdEncoding.EncodeToString([]byte("0123456789abcdef0123456789abcdef"))

// samples has one valid record of each kind, every field set.
func samples() map[string]*recordv1.Record {
	return map[string]*recordv1.Record{
		"east/cluster": {Cluster: "east", Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
			Name: "east", Id: 1, MeshId: "lab", PodCidrs: []string{"10.1.0.0/16"}, ServiceCidrs: []string{"10.96.0.0/16"},
			Labels: map[string]string{"fairlead.dev/cluster": "east", "env": "prod", "tier": ""}, Region: "eu-1", Zone: "eu-1a",
			Capabilities: []string{"wireguard"}, Version: "v0.1.0",
		}}},
		"east/nodes/east-1.example.com": {Cluster: "east", Payload: &recordv1.Record_Node{Node: &recordv1.Node{
			Name: "east-1.example.com", Addresses: []string{"192.168.1.11", "2001:db8::11"}, PodCidrs: []string{"10.1.1.0/24", "fd01:0:0:1::/64"},
			WireguardPublicKey: wireGuardKey, WireguardPort: 51820, Zone: "eu-1a", PodsInPodCidrs: true,
		}}},
		"east/identities/65792": {Cluster: "east", Payload: &recordv1.Record_Identity{Identity: &recordv1.Identity{
			Id: 1<<16 | 256, Labels: map[string]string{
				"app": "web", "fairlead.dev/cluster": "east", "fairlead.dev/namespace": "shop", "fairlead.dev/service-account": "web",
				"namespace.fairlead.dev/kubernetes.io/metadata.name": "shop",
			},
		}}},
		"east/endpoints/shop/web-0": {Cluster: "east", Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
			Namespace: "shop", Name: "web-0", Addresses: []string{"10.1.1.5", "fd01:0:0:1::5"}, Identity: 1<<16 | 256,
			Node: "east-1.example.com", NamedPorts: map[string]uint32{"http/TCP": 8080, "dns/UDP": 53},
			HostPorts: []*recordv1.HostPort{{Protocol: "TCP", Port: 8443, Target: 443}, {Protocol: "UDP", Port: 53, Target: 5353}},
		}}},
		"east/services/shop/web": {Cluster: "east", Payload: &recordv1.Record_Service{Service: &recordv1.Service{
			Namespace: "shop", Name: "web", ClusterIps: []string{"10.96.0.7"},
			Ports:  []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}, {Protocol: "UDP", Port: 53}},
			Global: true, Shared: true, Affinity: recordv1.Affinity_AFFINITY_LOCAL, AffinityTimeoutSeconds: 10800, Headless: true,
		}}},
		"east/slices/shop/web-abc": {Cluster: "east", Payload: &recordv1.Record_BackendSlice{BackendSlice: &recordv1.BackendSlice{
			Namespace: "shop", Service: "web", Name: "web-abc", Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 8080}},
			Backends: []*recordv1.Backend{{Addresses: []string{"10.1.1.5"}, Ready: true, Serving: true, Terminating: true, Node: "east-1.example.com", Zone: "eu-1a"}},
		}}},
		"east/slices/shop/web-big/3": {Cluster: "east", Payload: &recordv1.Record_BackendSlice{BackendSlice: &recordv1.BackendSlice{
			Namespace: "shop", Service: "web", Name: "web-big", Part: 3,
		}}},
		"east/policies/NetworkPolicy/shop/web": {Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
			Kind: "NetworkPolicy", Namespace: "shop", Name: "web", SpecJson: []byte(`{"podSelector":{}}`), Generation: 3,
			Provenance: &recordv1.Provenance{Source: "fairlead-system/policies", Url: "https://git.example.com/p.git", Revision: "main@sha1:0123", Path: "shop/web.yaml"}, Uid: "0ddba11",
		}}},
		"east/policies/ClusterMeshNetworkPolicy/-/base": {Cluster: "east", Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
			Kind: "ClusterMeshNetworkPolicy", Name: "base", SpecJson: []byte(" {}"),
		}}},
	}
}

func TestKeysComeFromPayloads(t *testing.T) {
	for key, rec := range samples() {
		got, err := Key(rec)
		if err != nil || got != key {
			t.Errorf("Key = %q, %v; want %q", got, err, key)
		}
		if ClusterOf(key) != "east" || !slices.Contains(Kinds(), Kind(key)) {
			t.Errorf("%s: cluster %q, kind %q", key, ClusterOf(key), Kind(key))
		}
		if err := Validate(key, rec, east); err != nil {
			t.Errorf("%s is refused: %v", key, err)
		}
	}
	for _, key := range []string{"", "east", "east/", "east/cluster/x", "east/nodes", "east/nodes/", "east/heartbeat", "east/synced", "east/leader", "east/other/x", "/nodes/x"} {
		if k := Kind(key); k != "" && key != "/nodes/x" {
			t.Errorf("Kind(%q) = %q", key, k)
		}
	}
	if ClusterOf("east-1/nodes/a") == "east" {
		t.Error("east-1 taken for east")
	}
}

// The bytes in the store and on disk are a contract between versions: what was once written must be read for ever, and
// equal records must have equal bytes in every build, or each upgrade rewrites the store.
func TestGoldenBytes(t *testing.T) {
	for key, rec := range samples() {
		file := filepath.Join("testdata", strings.ReplaceAll(key, "/", "_")+".golden")
		data, err := Marshal(rec)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, []byte(hex.Dump(data)), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.Dump(data); got != string(want) {
			t.Errorf("%s is encoded as\n%s, want\n%s", key, got, want)
		}
		for range 20 { // maps have no order
			again, err := Marshal(proto.CloneOf(rec))
			if err != nil || string(again) != string(data) {
				t.Fatalf("%s: encoded differently the second time (%v)", key, err)
			}
		}
		back, err := Unmarshal(data)
		if err != nil || !proto.Equal(back, rec) {
			t.Errorf("%s: read back %v, %v", key, back, err)
		}
	}
}

func TestUnmarshalBoundsAndTolerates(t *testing.T) {
	rec := samples()["east/identities/65792"]
	data, err := Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	newer := append(slices.Clone(data), 0xfa, 0x7f, 0x03, 'n', 'e', 'w') // field 2047, bytes
	back, err := Unmarshal(newer)
	if err != nil || !proto.Equal(back, rec) {
		t.Errorf("a newer version's record: %v, %v", back, err)
	}
	if len(back.ProtoReflect().GetUnknown()) > 0 {
		t.Error("what nobody here can validate is passed on")
	}
	if _, err := Unmarshal(make([]byte, MaxSize+1)); ReasonOf(err) != ReasonTooLarge {
		t.Errorf("huge: %v", err)
	}
	if _, err := Unmarshal([]byte("\xff\xff\xff")); ReasonOf(err) != ReasonMalformed {
		t.Errorf("garbage: %v", err)
	}
	rec.GetIdentity().Labels["x"] = strings.Repeat("x", MaxSize)
	if _, err := Marshal(rec); ReasonOf(err) != ReasonTooLarge {
		t.Errorf("marshal huge: %v", err)
	}
	future, err := Unmarshal([]byte{0x0a, 4, 'e', 'a', 's', 't', 0xaa, 0x06, 0}) // cluster, and payload field 101
	if err != nil {
		t.Fatal(err)
	}
	if err := Validate("east/gadgets/x", future, east); ReasonOf(err) != ReasonUnknownPayload {
		t.Errorf("a kind of the future: %v", err)
	}
}

// Each case spoils one thing of a valid record, as a hostile or broken member would.
func TestValidateRefuses(t *testing.T) {
	type edit = func(*recordv1.Record)
	cluster := func(f func(*recordv1.Cluster)) edit { return func(r *recordv1.Record) { f(r.GetClusterInfo()) } }
	node := func(f func(*recordv1.Node)) edit { return func(r *recordv1.Record) { f(r.GetNode()) } }
	identity := func(f func(*recordv1.Identity)) edit { return func(r *recordv1.Record) { f(r.GetIdentity()) } }
	endpoint := func(f func(*recordv1.Endpoint)) edit { return func(r *recordv1.Record) { f(r.GetEndpoint()) } }
	service := func(f func(*recordv1.Service)) edit { return func(r *recordv1.Record) { f(r.GetService()) } }
	backends := func(f func(*recordv1.BackendSlice)) edit {
		return func(r *recordv1.Record) { f(r.GetBackendSlice()) }
	}
	policy := func(f func(*recordv1.Policy)) edit { return func(r *recordv1.Record) { f(r.GetPolicy()) } }
	const (
		kCluster, kNode, kIdentity = "east/cluster", "east/nodes/east-1.example.com", "east/identities/65792"
		kEndpoint, kService        = "east/endpoints/shop/web-0", "east/services/shop/web"
		kSlice, kPolicy            = "east/slices/shop/web-abc", "east/policies/NetworkPolicy/shop/web"
		kClusterPolicy             = "east/policies/ClusterMeshNetworkPolicy/-/base"
	)
	for name, tc := range map[string]struct {
		key  string
		edit edit
		want Reason
	}{
		"speaks for another cluster": {kNode, func(r *recordv1.Record) { r.Cluster = "west" }, ReasonWrongCluster},
		"cluster with a slash":       {kNode, func(r *recordv1.Record) { r.Cluster = "east/x" }, ReasonWrongCluster},
		"no payload":                 {kNode, func(r *recordv1.Record) { r.Payload = nil }, ReasonUnknownPayload},
		"another payload":            {kNode, func(r *recordv1.Record) { r.Payload = samples()[kEndpoint].Payload }, ReasonKeyMismatch},
		"nil inside":                 {kNode, func(r *recordv1.Record) { r.Payload = &recordv1.Record_Node{} }, ReasonInvalidName},

		"cluster's other name":     {kCluster, cluster(func(c *recordv1.Cluster) { c.Name = "west" }), ReasonWrongCluster},
		"cluster's other id":       {kCluster, cluster(func(c *recordv1.Cluster) { c.Id = 2 }), ReasonWrongCluster},
		"cluster id 0":             {kCluster, cluster(func(c *recordv1.Cluster) { c.Id = 0 }), ReasonIdentityOutOfRange},
		"cluster id 257":           {kCluster, cluster(func(c *recordv1.Cluster) { c.Id = 257 }), ReasonIdentityOutOfRange},
		"cluster of another mesh":  {kCluster, cluster(func(c *recordv1.Cluster) { c.MeshId = "prod" }), ReasonWrongMesh},
		"cluster widens its claim": {kCluster, cluster(func(c *recordv1.Cluster) { c.PodCidrs = []string{"10.0.0.0/8"} }), ReasonAddressOutside},
		"cluster claims all":       {kCluster, cluster(func(c *recordv1.Cluster) { c.PodCidrs = []string{"0.0.0.0/0"} }), ReasonInvalidAddress},
		"cluster claims loopback":  {kCluster, cluster(func(c *recordv1.Cluster) { c.PodCidrs = []string{"127.0.0.0/16"} }), ReasonInvalidAddress},
		"cluster without CIDRs":    {kCluster, cluster(func(c *recordv1.Cluster) { c.PodCidrs = nil }), ReasonInvalidAddress},
		"cluster labelled another": {kCluster, cluster(func(c *recordv1.Cluster) { c.Labels["fairlead.dev/cluster"] = "west" }), ReasonInvalidLabels},
		"cluster without labels":   {kCluster, cluster(func(c *recordv1.Cluster) { c.Labels = nil }), ReasonInvalidLabels},
		"cluster's service CIDR":   {kCluster, cluster(func(c *recordv1.Cluster) { c.ServiceCidrs = []string{"x"} }), ReasonInvalidAddress},
		"escape sequence":          {kCluster, cluster(func(c *recordv1.Cluster) { c.Region = "\x1b[2J" }), ReasonMalformed},
		"endless text":             {kCluster, cluster(func(c *recordv1.Cluster) { c.Version = strings.Repeat("v", 3000) }), ReasonTooLarge},

		"node renamed":              {kNode, node(func(n *recordv1.Node) { n.Name = "east-2" }), ReasonKeyMismatch},
		"node named with a slash":   {kNode, node(func(n *recordv1.Node) { n.Name = "a/b" }), ReasonInvalidName},
		"node named with dots":      {kNode, node(func(n *recordv1.Node) { n.Name = ".." }), ReasonInvalidName},
		"node named in capitals":    {kNode, node(func(n *recordv1.Node) { n.Name = "East" }), ReasonInvalidName},
		"node's name too long":      {kNode, node(func(n *recordv1.Node) { n.Name = strings.Repeat("a", 254) }), ReasonInvalidName},
		"node without address":      {kNode, node(func(n *recordv1.Node) { n.Addresses = nil }), ReasonInvalidAddress},
		"node with 17 addresses":    {kNode, node(func(n *recordv1.Node) { n.Addresses = make([]string, 17) }), ReasonInvalidAddress},
		"node at loopback":          {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"127.0.0.1"} }), ReasonNodeAddress},
		"node at ::1":               {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"::1"} }), ReasonNodeAddress},
		"node at link-local":        {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"169.254.169.254"} }), ReasonNodeAddress},
		"node at fe80":              {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"fe80::1"} }), ReasonNodeAddress},
		"node at multicast":         {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"224.0.0.1"} }), ReasonNodeAddress},
		"node at broadcast":         {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"255.255.255.255"} }), ReasonNodeAddress},
		"node unspecified":          {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"0.0.0.0"} }), ReasonNodeAddress},
		"node at a pod's address":   {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"10.1.2.3"} }), ReasonNodeAddress},
		"node at a foreign pod's":   {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"10.2.0.9"} }), ReasonNodeAddress},
		"node mapped into IPv6":     {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"::ffff:10.2.0.9"} }), ReasonInvalidAddress},
		"node address with zone":    {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"2001:db8::1%eth0"} }), ReasonInvalidAddress},
		"node address spelt oddly":  {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"2001:DB8::1"} }), ReasonInvalidAddress},
		"node address octal":        {kNode, node(func(n *recordv1.Node) { n.Addresses = []string{"192.168.001.011"} }), ReasonInvalidAddress},
		"node takes another's CIDR": {kNode, node(func(n *recordv1.Node) { n.PodCidrs = []string{"10.2.0.0/24"} }), ReasonAddressOutside},
		"node takes a wider CIDR":   {kNode, node(func(n *recordv1.Node) { n.PodCidrs = []string{"10.0.0.0/15"} }), ReasonAddressOutside},
		"node CIDR not masked":      {kNode, node(func(n *recordv1.Node) { n.PodCidrs = []string{"10.1.1.5/24"} }), ReasonInvalidAddress},
		"key too short":             {kNode, node(func(n *recordv1.Node) { n.WireguardPublicKey = "AAAA" }), ReasonInvalidKey},
		"key of zeros":              {kNode, node(func(n *recordv1.Node) { n.WireguardPublicKey = base64.StdEncoding.EncodeToString(make([]byte, 32)) }), ReasonInvalidKey},
		"key not base64":            {kNode, node(func(n *recordv1.Node) { n.WireguardPublicKey = strings.Repeat("!", 44) }), ReasonInvalidKey},
		"key with trailing bits":    {kNode, node(func(n *recordv1.Node) { n.WireguardPublicKey = wireGuardKey[:42] + "n=" }), ReasonInvalidKey},
		"key with a newline":        {kNode, node(func(n *recordv1.Node) { n.WireguardPublicKey = wireGuardKey + "\n" }), ReasonInvalidKey},
		"key without port":          {kNode, node(func(n *recordv1.Node) { n.WireguardPort = 0 }), ReasonInvalidPort},
		"port 65536":                {kNode, node(func(n *recordv1.Node) { n.WireguardPort = 65536 }), ReasonInvalidPort},

		"identity of another cluster": {"east/identities/131328", identity(func(i *recordv1.Identity) { i.Id = 2<<16 | 256 }), ReasonIdentityOutOfRange},
		"reserved identity":           {"east/identities/1", identity(func(i *recordv1.Identity) { i.Id = 1 }), ReasonIdentityOutOfRange},
		"reserved part of the range":  {"east/identities/65791", identity(func(i *recordv1.Identity) { i.Id = 1<<16 | 255 }), ReasonIdentityOutOfRange},
		"node-local identity":         {"east/identities/16843008", identity(func(i *recordv1.Identity) { i.Id = 1<<24 | 1<<16 | 256 }), ReasonIdentityOutOfRange},
		"identity labelled another":   {kIdentity, identity(func(i *recordv1.Identity) { i.Labels["fairlead.dev/cluster"] = "west" }), ReasonInvalidLabels},
		"identity without labels":     {kIdentity, identity(func(i *recordv1.Identity) { i.Labels = nil }), ReasonInvalidLabels},
		"identity with 300 labels": {kIdentity, identity(func(i *recordv1.Identity) {
			for n := range 300 {
				i.Labels[fmt.Sprint("l", n)] = ""
			}
		}), ReasonInvalidLabels},
		"identity with a long label": {kIdentity, identity(func(i *recordv1.Identity) { i.Labels["x"] = strings.Repeat("x", 300) }), ReasonInvalidLabels},

		"endpoint at another's address": {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Addresses = []string{"10.2.0.1"} }), ReasonAddressOutside},
		"endpoint at the internet":      {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Addresses = []string{"10.1.0.1", "1.1.1.1"} }), ReasonAddressOutside},
		"endpoint without address":      {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Addresses = nil }), ReasonInvalidAddress},
		"endpoint with CIDR":            {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Addresses = []string{"10.1.0.1/24"} }), ReasonInvalidAddress},
		"endpoint of world":             {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Identity = 2 }), ReasonIdentityOutOfRange},
		"endpoint of a foreign id":      {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Identity = 2<<16 | 300 }), ReasonIdentityOutOfRange},
		"endpoint on no node":           {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Node = "" }), ReasonInvalidName},
		"endpoint's namespace":          {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Namespace = "a.b" }), ReasonInvalidName},
		"endpoint moved":                {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.Namespace = "kube-system" }), ReasonKeyMismatch},
		"named port 0":                  {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.NamedPorts["http/TCP"] = 0 }), ReasonInvalidPort},
		"named port without protocol":   {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.NamedPorts["http"] = 80 }), ReasonInvalidPort},
		"host port 0":                   {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.HostPorts[0].Port = 0 }), ReasonInvalidPort},
		"host port to no port":          {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.HostPorts[0].Target = 70000 }), ReasonInvalidPort},
		"host port's protocol":          {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.HostPorts[0].Protocol = "ICMP" }), ReasonInvalidPort},
		"host port nil":                 {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.HostPorts[0] = nil }), ReasonInvalidPort},
		"300 host ports":                {kEndpoint, endpoint(func(e *recordv1.Endpoint) { e.HostPorts = make([]*recordv1.HostPort, 300) }), ReasonTooLarge},

		"service not exported":      {"east/services/kube-system/web", service(func(s *recordv1.Service) { s.Namespace = "kube-system" }), ReasonNamespace},
		"service port 0":            {kService, service(func(s *recordv1.Service) { s.Ports[0].Port = 0 }), ReasonInvalidPort},
		"service protocol":          {kService, service(func(s *recordv1.Service) { s.Ports[0].Protocol = "tcp" }), ReasonInvalidPort},
		"service port name":         {kService, service(func(s *recordv1.Service) { s.Ports[0].Name = "HTTP port" }), ReasonInvalidName},
		"service address":           {kService, service(func(s *recordv1.Service) { s.ClusterIps = []string{"None"} }), ReasonInvalidAddress},
		"service affinity":          {kService, service(func(s *recordv1.Service) { s.Affinity = 77 }), ReasonMalformed},
		"slice not exported":        {"east/slices/kube-system/web-abc", backends(func(s *recordv1.BackendSlice) { s.Namespace = "kube-system" }), ReasonNamespace},
		"backend outside":           {kSlice, backends(func(s *recordv1.BackendSlice) { s.Backends[0].Addresses = []string{"192.168.1.11"} }), ReasonAddressOutside},
		"backend without address":   {kSlice, backends(func(s *recordv1.BackendSlice) { s.Backends[0].Addresses = nil }), ReasonInvalidAddress},
		"backend nil":               {kSlice, backends(func(s *recordv1.BackendSlice) { s.Backends[0] = nil }), ReasonInvalidAddress},
		"backend's node":            {kSlice, backends(func(s *recordv1.BackendSlice) { s.Backends[0].Node = "a/b" }), ReasonInvalidName},
		"slice of no service":       {kSlice, backends(func(s *recordv1.BackendSlice) { s.Service = "" }), ReasonInvalidName},
		"slice port":                {kSlice, backends(func(s *recordv1.BackendSlice) { s.Ports[0].Port = 70000 }), ReasonInvalidPort},
		"slice with 1001 backends":  {kSlice, backends(func(s *recordv1.BackendSlice) { s.Backends = make([]*recordv1.Backend, 1001) }), ReasonTooLarge},
		"slice with too many ports": {kSlice, backends(func(s *recordv1.BackendSlice) { s.Ports = make([]*recordv1.ServicePort, 300) }), ReasonTooLarge},

		"policy of unknown kind":       {kPolicy, policy(func(p *recordv1.Policy) { p.Kind = "Other" }), ReasonInvalidPolicy},
		"policy without namespace":     {kPolicy, policy(func(p *recordv1.Policy) { p.Namespace = "" }), ReasonInvalidName},
		"policy in namespace -":        {kPolicy, policy(func(p *recordv1.Policy) { p.Namespace = "-" }), ReasonInvalidName},
		"cluster policy in namespace":  {kClusterPolicy, policy(func(p *recordv1.Policy) { p.Namespace = "x" }), ReasonInvalidPolicy},
		"policy without spec":          {kPolicy, policy(func(p *recordv1.Policy) { p.SpecJson = nil }), ReasonInvalidPolicy},
		"policy that is a list":        {kPolicy, policy(func(p *recordv1.Policy) { p.SpecJson = []byte("[]") }), ReasonInvalidPolicy},
		"policy with broken JSON":      {kPolicy, policy(func(p *recordv1.Policy) { p.SpecJson = []byte(`{"a":}`) }), ReasonInvalidPolicy},
		"policy with two objects":      {kPolicy, policy(func(p *recordv1.Policy) { p.SpecJson = []byte(`{}{}`) }), ReasonInvalidPolicy},
		"policy too large":             {kPolicy, policy(func(p *recordv1.Policy) { p.SpecJson = []byte(`{"a":"` + strings.Repeat("x", 65<<10) + `"}`) }), ReasonTooLarge},
		"policy from a terminal trick": {kPolicy, policy(func(p *recordv1.Policy) { p.Provenance.Path = "a\nb" }), ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			source := samples()[tc.key]
			if source == nil { // the key was changed along with the payload, so that only the rest is wrong
				all := samples()
				for _, key := range slices.Sorted(maps.Keys(all)) {
					if source == nil && Kind(key) == Kind(tc.key) {
						source = all[key]
					}
				}
			}
			tc.edit(source)
			err := Validate(tc.key, source, east)
			var refusal *Error
			if !errors.As(err, &refusal) {
				t.Fatalf("accepted, or not an *Error: %v", err)
			}
			if refusal.Reason != tc.want || !errors.Is(err, &Error{Reason: tc.want}) {
				t.Errorf("refused with %v, want %s", err, tc.want)
			}
		})
	}
	if err := Validate("west/nodes/a", samples()[kNode], east); ReasonOf(err) != ReasonWrongCluster {
		t.Errorf("a key outside the prefix: %v", err)
	}
}

func TestClaims(t *testing.T) {
	info := samples()["east/cluster"].GetClusterInfo()
	claim, err := ClaimFrom(info)
	if err != nil || claim.Name != "east" || claim.ID != 1 || claim.MeshID != "lab" || !slices.Equal(claim.PodCIDRs, prefixes("10.1.0.0/16")) {
		t.Errorf("claim %+v, %v", claim, err)
	}
	if p, ok := Overlap(east, Claim{PodCIDRs: prefixes("10.1.128.0/17")}); !ok || p != netip.MustParsePrefix("10.1.128.0/17") {
		t.Errorf("overlap %v %v", p, ok)
	}
	if _, ok := Overlap(east, Claim{PodCIDRs: prefixes("10.2.0.0/16")}); ok {
		t.Error("no overlap taken for one")
	}
	open := east
	open.ExportNamespaces = nil
	rec := samples()["east/services/shop/web"]
	rec.GetService().Namespace = "anything"
	if err := Validate("east/services/anything/web", rec, open); err != nil {
		t.Errorf("without an allowlist: %v", err)
	}
}

func TestNewSetRefusesTwins(t *testing.T) {
	rec := samples()["east/cluster"]
	if _, err := NewSet(rec, proto.CloneOf(rec)); err == nil {
		t.Error("two records of one key were taken")
	}
}

// Applying the difference between two sets to one gives the other.
func TestDiffAndApply(t *testing.T) {
	set := rapid.Custom(func(t *rapid.T) Set {
		return rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}), rapid.SliceOfN(rapid.Byte(), 0, 2)).Draw(t, "set")
	})
	rapid.Check(t, func(t *rapid.T) {
		from, to := set.Draw(t, "from"), set.Draw(t, "to")
		d := Diff(from, to)
		for key := range d.Put {
			if have, ok := from[key]; ok && string(have) == string(to[key]) {
				t.Fatalf("needless put of %s", key)
			}
		}
		got := maps.Clone(from)
		got.Apply(d)
		if !Diff(got, to).Empty() || len(got) != len(to) {
			t.Fatalf("%v + %v = %v, want %v", from, d, got, to)
		}
	})
}

// FuzzValidate feeds bytes that a hostile member may store under any key. Nothing may panic, and whatever passes must
// keep what the rest of the mesh relies on.
func FuzzValidate(f *testing.F) {
	for key, rec := range samples() {
		data, err := Marshal(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(key, data)
	}
	f.Fuzz(func(t *testing.T, key string, data []byte) {
		rec, err := Unmarshal(data)
		if err != nil {
			if !errors.As(err, new(*Error)) {
				t.Fatalf("not an *Error: %v", err)
			}
			return
		}
		err = Validate(key, rec, east)
		if err != nil {
			if !errors.As(err, new(*Error)) || len(err.Error()) > 1024 {
				t.Fatalf("not a short *Error: %v", err)
			}
			return
		}
		if own, err := Key(rec); err != nil || own != key || Kind(key) == "" || ClusterOf(key) != "east" {
			t.Fatalf("accepted %q although its key is %q (%v)", key, own, err)
		}
		for _, a := range rec.GetEndpoint().GetAddresses() {
			if !east.OwnsAddress(netip.MustParseAddr(a)) {
				t.Fatalf("accepted an endpoint at %s", a)
			}
		}
		if rec.GetIdentity() != nil && rec.GetIdentity().GetId()>>16 != 1 {
			t.Fatalf("accepted identity %d", rec.GetIdentity().GetId())
		}
		if _, err := Marshal(rec); err != nil {
			t.Fatalf("accepted what can't be encoded: %v", err)
		}
	})
}
