// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

const namespace = "evade"

// Ports. Of a victim friends may call open, and nobody anything else.
const (
	open      = 8080 // TCP
	shut      = 9090 // TCP
	shutUDP   = 8081
	hostTCP   = 18090 // of pods of the node's network
	hostUDP   = 18091
	hostPort  = 18081
	nodePort  = 30480 // and the next one for UDP
	localPort = 30482
	kubelet   = 10250
	wireguard = 51871
	external4 = "198.51.100.77"
	external6 = "2001:db8:77::77"
	balancer4 = "198.51.100.78"
	balancer6 = "2001:db8:77::78"
)

// actor is a pod of the scenario, in each cluster.
type actor struct {
	name, role string
	node       int  // 1 or 2
	raw        bool // root, with NET_RAW; else nobody, with nothing
	host       bool // in the node's network
}

// What a victim's raw sockets are for: it looks at everything that arrives.
var actors = []actor{
	{name: "raw", role: "attacker", node: 1, raw: true},
	{name: "plain", role: "attacker", node: 1},
	{name: "friend", role: "friend", node: 1, raw: true},
	{name: "ally", role: "friend", node: 2, raw: true},
	{name: "bystander", role: "bystander", node: 2, raw: true}, // whom nothing protects
	{name: "near", role: "victim", node: 1, raw: true},
	{name: "next", role: "victim", node: 2, raw: true},
	{name: "far", role: "far", node: 2, raw: true},
	{name: "walled", role: "walled", node: 1, raw: true},
	{name: "outcast", role: "outcast", node: 1, raw: true},
	{name: "outcast-plain", role: "outcast", node: 1},
	{name: "host-1", role: "host", node: 1, raw: true, host: true},
	{name: "host-2", role: "host", node: 2, raw: true, host: true},
}

func (a actor) manifest(cluster string) string {
	security := "{runAsUser: 65534, runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
	if a.raw {
		security = "{runAsUser: 0, capabilities: {drop: [ALL], add: [NET_RAW]}}"
	}
	args, port, ports := "[listen]", open, ""
	if a.host {
		args, port = fmt.Sprintf("[listen, -tcp, %q, -udp, %q, -frames=false]", fmt.Sprint(hostTCP), fmt.Sprint(hostUDP)), hostTCP
	}
	if a.name == "near" {
		ports = fmt.Sprintf("\n      ports: [{containerPort: %d, hostPort: %d}]", open, hostPort)
	}
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s, namespace: evade, labels: {role: %[2]s, actor: %[1]s}}
spec:
  nodeName: %[3]s-%[4]d
  hostNetwork: %[5]t
  terminationGracePeriodSeconds: 1
  containers:
    - name: attacker
      image: %[6]s
      imagePullPolicy: Never
      args: %[7]s
      securityContext: %[8]s
      readinessProbe: {tcpSocket: {port: %[9]d}, periodSeconds: 2}%[10]s
`, a.name, a.role, cluster, a.node, a.host, image, args, security, port, ports)
}

// service of both families. extra are fields of its spec, with a comma behind each.
func service(name, annotations, role, extra, ports string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: evade, annotations: {%s}}
spec: {ipFamilyPolicy: RequireDualStack, selector: {role: %s}, %s ports: [%s]}
`, name, annotations, role, extra, ports)
}

const twoPorts = "{name: t, port: 8080}, {name: u, port: 8081, protocol: UDP}"

func nodePorts(first int) string {
	return fmt.Sprintf("{name: t, port: 8080, nodePort: %d}, {name: u, port: 8081, protocol: UDP, nodePort: %d}", first, first+1)
}

// pods and services of a cluster.
func workload(cluster string) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: evade}\n")
	for _, a := range actors {
		b.WriteString(a.manifest(cluster))
	}
	b.WriteString(service("victims", "", "victim", fmt.Sprintf("type: NodePort, externalIPs: [%s, %q],", external4, external6), nodePorts(nodePort)))
	b.WriteString(service("victims-local", "", "victim", "type: NodePort, externalTrafficPolicy: Local,", nodePorts(localPort)))
	b.WriteString(service("victims-balanced", "", "victim", "type: LoadBalancer, allocateLoadBalancerNodePorts: false,", twoPorts))
	b.WriteString(service("far", `fairlead.dev/global: "true"`, "far", "", twoPorts))
	b.WriteString(service("friends", "", "friend", "", twoPorts+", {name: s, port: 9090}"))
	b.WriteString(service("hosts", "", "host", "", "{name: t, port: 80, targetPort: 18090}, {name: u, port: 81, targetPort: 18091, protocol: UDP}"))
	return b.String()
}

// balancer is the status that a cloud would write.
var balancer = fmt.Sprintf(`{"status": {"loadBalancer": {"ingress": [{"ip": %q}, {"ip": %q}]}}}`, balancer4, balancer6)

// policies stand in the way, in every cluster.
const policies = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: victims, namespace: evade}
spec:
  podSelector: {matchLabels: {role: victim}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 8080}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: outcasts, namespace: evade}
spec:
  podSelector: {matchLabels: {role: outcast}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {role: friend}}}], ports: [{port: 8080}]}]
---
apiVersion: fairlead.dev/v1alpha1
kind: MeshNetworkPolicy
metadata: {name: far, namespace: evade}
spec:
  podSelector: {matchLabels: {role: far}}
  ingress: {allow: [{peers: [{clusterSelector: {}, podSelector: {matchLabels: {role: friend}}}], ports: [{protocol: TCP, port: 8080}]}]}
---
apiVersion: fairlead.dev/v1alpha1
kind: ClusterMeshNetworkPolicy
metadata: {name: evade-walled}
spec:
  tier: Admin
  priority: 50
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: evade}}
  podSelector: {matchLabels: {role: walled}}
  ingress:
    allow:
      - peers: [{clusterSelector: {}, namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: evade}}, podSelector: {matchLabels: {role: friend}}}]
        ports: [{protocol: TCP, port: 8080}]
`

// nodesClosed closes ports of all nodes, the own one too.
const nodesClosed = `
apiVersion: fairlead.dev/v1alpha1
kind: ClusterMeshNetworkPolicy
metadata: {name: evade-nodes}
spec:
  tier: Admin
  priority: 40
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: evade}}
  podSelector: {matchLabels: {role: attacker}}
  egress:
    defaultAction: Allow
    deny:
      - peers: [{entities: [Nodes]}]
        ports: [{protocol: TCP, port: 10250}, {protocol: TCP, port: 18090}, {protocol: UDP, port: 18091}]
`
