// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strings"
)

// service is one ClusterIP service with one backend.
type service struct {
	name     string // namespace/name:port, as kube-proxy's comments have it
	frontend netip.AddrPort
	backend  netip.AddrPort
}

// hash names a chain as kube-proxy does: the first 16 characters of the base32 of a SHA-256.
func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "")))
	return base32.StdEncoding.EncodeToString(sum[:])[:16]
}

func (s service) svcChain() string { return "KUBE-SVC-" + hash(s.name, "tcp") }
func (s service) sepChain() string { return "KUBE-SEP-" + hash(s.name, "tcp", s.backend.String()) }

// iptablesRules are what kube-proxy's iptables mode gives to iptables-restore for these services: the chains and rules that
// a connection of a pod meets, in its order (pkg/proxy/iptables of Kubernetes 1.34).
func iptablesRules(services []service, pods netip.Prefix) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("*filter")
	for _, chain := range []string{"KUBE-EXTERNAL-SERVICES", "KUBE-FORWARD", "KUBE-NODEPORTS", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES"} {
		line(":%s - [0:0]", chain)
	}
	const fresh = "-m conntrack --ctstate NEW"
	line(`-A INPUT %s -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL`, fresh)
	line(`-A INPUT -m comment --comment "kubernetes health check service ports" -j KUBE-NODEPORTS`)
	line(`-A INPUT %s -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES`, fresh)
	line(`-A FORWARD %s -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL`, fresh)
	line(`-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD`)
	line(`-A FORWARD %s -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`, fresh)
	line(`-A FORWARD %s -m comment --comment "kubernetes externally-visible service portals" -j KUBE-EXTERNAL-SERVICES`, fresh)
	line(`-A OUTPUT %s -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL`, fresh)
	line(`-A OUTPUT %s -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`, fresh)
	line(`-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP`)
	line(`-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT`)
	line(`-A KUBE-FORWARD -m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`)
	line("COMMIT")
	line("*nat")
	for _, chain := range []string{"KUBE-MARK-MASQ", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-SERVICES"} {
		line(":%s - [0:0]", chain)
	}
	for _, s := range services {
		line(":%s - [0:0]", s.svcChain())
		line(":%s - [0:0]", s.sepChain())
	}
	line(`-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`)
	line(`-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`)
	line(`-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING`)
	line(`-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000`)
	line(`-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN`)
	line(`-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000`)
	line(`-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`)
	for _, s := range services {
		match := fmt.Sprintf("-m tcp -p tcp -d %s --dport %d", s.frontend.Addr(), s.frontend.Port())
		line(`-A KUBE-SERVICES -m comment --comment "%s cluster IP" %s -j %s`, s.name, match, s.svcChain())
		line(`-A %s -m comment --comment "%s cluster IP" %s ! -s %s -j KUBE-MARK-MASQ`, s.svcChain(), s.name, match, pods)
		line(`-A %s -m comment --comment "%s -> %s" -j %s`, s.svcChain(), s.name, s.backend, s.sepChain())
		line(`-A %s -m comment --comment %s -s %s -j KUBE-MARK-MASQ`, s.sepChain(), s.name, s.backend.Addr())
		line(`-A %s -m comment --comment %s -m tcp -p tcp -j DNAT --to-destination %s`, s.sepChain(), s.name, s.backend)
	}
	line(`-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`)
	line("COMMIT")
	return b.String()
}

// nftablesRules are what kube-proxy's nftables mode gives to nft: one table, base chains, and a verdict map from address
// and port to a service's chain (pkg/proxy/nftables of Kubernetes 1.34).
func nftablesRules(services []service, pods netip.Prefix) string {
	var b strings.Builder
	b.WriteString(nftablesBase)
	for _, s := range services {
		svc, ep := nftChains(s)
		fmt.Fprintf(&b, `add chain ip kube-proxy %[1]s
add chain ip kube-proxy %[2]s
add rule ip kube-proxy %[1]s ip daddr %[3]s tcp dport %[4]d ip saddr != %[5]s jump mark-for-masquerade
add rule ip kube-proxy %[1]s numgen random mod 1 vmap { 0 : goto %[2]s }
add rule ip kube-proxy %[2]s ip saddr %[6]s jump mark-for-masquerade
add rule ip kube-proxy %[2]s meta l4proto tcp dnat to %[7]s
add element ip kube-proxy cluster-ips { %[3]s }
add element ip kube-proxy service-ips { %[3]s . tcp . %[4]d : goto %[1]s }
`, svc, ep, s.frontend.Addr(), s.frontend.Port(), pods, s.backend.Addr(), s.backend)
	}
	return b.String()
}

func nftChains(s service) (svc, endpoint string) {
	namespace, rest, _ := strings.Cut(s.name, "/")
	name, port, _ := strings.Cut(rest, ":")
	h := hash(s.name, "tcp")[:8]
	svc = fmt.Sprintf("service-%s-%s/%s/tcp/%s", h, namespace, name, port)
	return svc, fmt.Sprintf("endpoint-%s-%s/%s/tcp/%s__%s/%d", h, namespace, name, port, s.backend.Addr(), s.backend.Port())
}

const nftablesBase = `add table ip kube-proxy { comment "rules for kube-proxy"; }
add set ip kube-proxy cluster-ips { type ipv4_addr; }
add set ip kube-proxy nodeport-ips { type ipv4_addr; }
add map ip kube-proxy no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip kube-proxy no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
add map ip kube-proxy firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip kube-proxy service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
add map ip kube-proxy service-nodeports { type inet_proto . inet_service : verdict; }
add chain ip kube-proxy mark-for-masquerade
add rule ip kube-proxy mark-for-masquerade mark set mark or 0x4000
add chain ip kube-proxy masquerading
add rule ip kube-proxy masquerading mark and 0x4000 == 0 return
add rule ip kube-proxy masquerading mark set mark xor 0x4000
add rule ip kube-proxy masquerading masquerade fully-random
add chain ip kube-proxy services
add rule ip kube-proxy services ip daddr . meta l4proto . th dport vmap @service-ips
add rule ip kube-proxy services ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
add chain ip kube-proxy cluster-ips-check
add rule ip kube-proxy cluster-ips-check ip daddr @cluster-ips reject
add chain ip kube-proxy firewall-check
add rule ip kube-proxy firewall-check ip daddr . meta l4proto . th dport vmap @firewall-ips
add chain ip kube-proxy nodeport-endpoints-check
add rule ip kube-proxy nodeport-endpoints-check ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
add chain ip kube-proxy service-endpoints-check
add rule ip kube-proxy service-endpoints-check ip daddr . meta l4proto . th dport vmap @no-endpoint-services
add chain ip kube-proxy filter-prerouting-pre-dnat { type filter hook prerouting priority dstnat - 10; }
add rule ip kube-proxy filter-prerouting-pre-dnat ct state new jump firewall-check
add chain ip kube-proxy filter-output-pre-dnat { type filter hook output priority -110; }
add rule ip kube-proxy filter-output-pre-dnat ct state new jump firewall-check
add chain ip kube-proxy filter-input { type filter hook input priority filter; }
add rule ip kube-proxy filter-input ct state new jump nodeport-endpoints-check
add rule ip kube-proxy filter-input ct state new jump service-endpoints-check
add chain ip kube-proxy filter-forward { type filter hook forward priority filter; }
add rule ip kube-proxy filter-forward ct state new jump service-endpoints-check
add rule ip kube-proxy filter-forward ct state new jump cluster-ips-check
add chain ip kube-proxy filter-output { type filter hook output priority filter; }
add rule ip kube-proxy filter-output ct state new jump service-endpoints-check
add rule ip kube-proxy filter-output ct state new jump cluster-ips-check
add chain ip kube-proxy nat-prerouting { type nat hook prerouting priority dstnat; }
add rule ip kube-proxy nat-prerouting jump services
add chain ip kube-proxy nat-output { type nat hook output priority -100; }
add rule ip kube-proxy nat-output jump services
add chain ip kube-proxy nat-postrouting { type nat hook postrouting priority srcnat; }
add rule ip kube-proxy nat-postrouting jump masquerading
`
