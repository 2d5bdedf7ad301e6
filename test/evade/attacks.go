// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// What stands in the way.
const (
	ingress   = "NetworkPolicy, MeshNetworkPolicy, ClusterMeshNetworkPolicy: only friends, only TCP 8080"
	isolation = "NetworkPolicy of the outcast: only friends, only TCP 8080"
	either    = "the same, and for outcasts a NetworkPolicy of their own"
	ownSource = "a pod's packets come from its address"
	nodesDeny = "ClusterMeshNetworkPolicy of the tier Admin that denies Nodes"
)

// Who attacks. Friends and outcasts have an open port to begin with.
const (
	attackers = "raw plain"
	rawOnes   = "raw friend outcast"
	outcasts  = "outcast outcast-plain"
)

// attacks is everything that is tried.
func attacks() []*attack {
	all := slices.Concat(plainAttacks(), spoofAttacks(), tcpAttacks(), udpAttacks(), fragmentAttacks(), headerAttacks(), icmpAttacks(), linkAttacks(), tunnelAttacks(),
		outcastAttacks(), nodeAttacks())
	out := make([]*attack, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out
}

// plainAttacks need nothing but sockets.
func plainAttacks() []attack {
	add := func(name, how, detail string, aim func(v view) []job.Job) attack {
		return attack{group: "sockets", name: name, from: attackers, how: how, detail: detail, stands: ingress, aim: aim}
	}
	all := []attack{
		{group: "sockets", name: "a friend calls", from: "friend ally", how: "connect", stands: ingress, allowed: true, aim: openTo(open)},
		add("connect", "connect", "", victimsAt(open)),
		add("connect to another port", "connect", "", victimsAt(shut)),
		add("a datagram", "datagram", "", victimsAt(shutUDP)),
		add("an unconnected datagram", "unconnected", "", victimsAt(shutUDP)),
		add("connect to a service", "connect", "", serviceAddresses(open)),
		add("a datagram to a service", "datagram", "", serviceAddresses(shutUDP)),
		add("an unconnected datagram to a service", "unconnected", "", serviceAddresses(shutUDP)),
		add("connect to a node port", "connect", "", nodePortsOf(0)),
		add("a datagram to a node port", "datagram", "", nodePortsOf(1)),
		add("an unconnected datagram to a node port", "unconnected", "", nodePortsOf(1)),
		add("connect to a host port", "connect", "", hostPorts),
		add("fast open", "fast open socket", "", victimsAt(open)),
		add("multipath TCP", "socket", "MPTCP", victimsAt(open)),
	}
	for i := range all {
		all[i].byNode = strings.Contains(all[i].name, "node port") || strings.Contains(all[i].name, "host port")
	}
	for _, m := range []attack{
		add("an IPv4 address in an IPv6 socket", "mapped", "", victimsAt(open)),
		add("a service's IPv4 address in an IPv6 socket", "mapped", "", serviceAddresses(open)),
		add("a node port's IPv4 address in an IPv6 socket", "mapped", "", nodePortsOf(0)),
	} {
		m.families, m.byNode = "4", strings.Contains(m.name, "node port")
		all = append(all, m)
	}
	for _, port := range []int{53, 123, 443, 6443} {
		all = append(all, add(fmt.Sprintf("an unconnected datagram from port %d", port), "unconnected", "from a port", shaped(one("near", shutUDP), from(port))))
	}
	for _, kind := range []string{"raw IP", "raw 253", "ping", "SCTP", "UDP-Lite", "DCCP", "mark"} {
		a := add("a socket: "+kind, "socket", kind, victimsAt(shutUDP))
		a.control = nothing
		all = append(all, a)
	}
	route := add("a source route by a socket", "source route socket", "", shaped(victimsAt(shutUDP), overFriend))
	route.control = nothing
	return append(all, route)
}

func overFriend(v view, j *job.Job) { j.Over = v.home.pods["friend"].ip[v.family] }

// spoofAttacks claim an address that policy lets in.
func spoofAttacks() []attack {
	var all []attack
	for _, c := range []struct {
		name string
		who  func(v view) string
	}{
		{"a friend's", func(v view) string { return v.home.pods["friend"].ip[v.family] }},
		{"a friend's of another node", func(v view) string { return v.home.pods["ally"].ip[v.family] }},
		{"a friend's of the other cluster", func(v view) string { return v.away.pods["friend"].ip[v.family] }},
		{"the own node's", func(v view) string { return v.home.nodes[0][v.family] }},
		{"the gateway's", func(v view) string { return v.me.gateway[v.family] }},
		{"another node's", func(v view) string { return v.home.nodes[1][v.family] }},
		{"a node's of the other cluster", func(v view) string { return v.away.nodes[0][v.family] }},
		{"the victim's own", func(v view) string { return v.home.pods["near"].ip[v.family] }},
		{"loopback", func(v view) string { return pair{"127.0.0.1", "::1"}[v.family] }},
		{"a link-local", func(v view) string { return pair{"169.254.1.1", "fe80::1"}[v.family] }},
		{"the gateway's link-local", func(v view) string { return pair{"169.254.1.1", v.me.linkRouter}[v.family] }},
		{"nobody's", func(v view) string { return v.me.nobody(v.family) }},
		{"a service's", func(v view) string { return v.home.services["friends"][v.family] }},
		{"the world's", func(v view) string { return pair{"192.0.2.9", "2001:db8::9"}[v.family] }},
		{"none", func(v view) string { return pair{"0.0.0.0", "::"}[v.family] }},
		{"a group's", func(v view) string { return pair{"224.0.0.1", "ff02::1"}[v.family] }},
		{"the broadcast", func(v view) string { return pair{"255.255.255.255", "::ffff:255.255.255.255"}[v.family] }},
		{"a mapped friend's", func(v view) string { return pair{"", "::ffff:" + v.home.pods["friend"].ip[four]}[v.family] }},
	} {
		shape := claiming(c.who)
		add := func(what, how, detail string, ctl control, port int) {
			all = append(all, attack{group: "sources", name: what + " from " + c.name + " address", from: "raw", how: how, detail: detail, stands: ownSource, control: ctl, aim: shaped(victimsAt(port), shape)})
		}
		add("a SYN", "tcp", "S", honest, open)
		add("a datagram", "udp", "", honest, shutUDP)
	}
	all = append(append(all, lateAttacks()...), sharedAttacks()...)
	friendly := claiming(func(v view) string { return v.home.pods["friend"].ip[v.family] })
	for _, s := range []struct{ name, how, detail string }{
		{"bind to a friend's address, transparent", "bind", "transparent"}, {"bind to a friend's address, free", "bind", "free"}, {"take a friend's address", "add address", ""},
	} {
		all = append(all, attack{group: "sources", name: s.name, from: attackers, how: s.how, detail: s.detail, stands: ownSource, control: nothing, aim: shaped(victimsAt(shutUDP), friendly)})
	}
	return all
}

// lateAttacks change a packet after it was judged.
func lateAttacks() []attack {
	add := func(detail, from, stands string, ctl control, aim func(v view) []job.Job) attack {
		return attack{group: "sources", name: "a checksum that changes the " + detail, from: from, how: "late checksum", detail: detail, stands: stands, control: ctl, aim: aim}
	}
	open := func(v view, j *job.Job) { j.Open = open }
	return []attack{
		add("source", "raw", ownSource, nothing, shaped(victimsAt(8080), func(v view, j *job.Job) { overFriend(v, j); j.Claim = j.Over })),
		add("destination", "outcast", isolation, nothing, func(v view) (jobs []job.Job) {
			for _, name := range []string{"bystander", "next", "far"} {
				j := at(name+" by ally", v.home.pods["ally"].ip[v.family], 8080)
				j.Over = v.home.pods[name].ip[v.family]
				jobs = append(jobs, j)
			}
			return jobs
		}),
		add("port", "outcast friend", either, nothing, shaped(peersOf(shut), open)),
	}
}

// sharedAttacks change a packet while it is judged.
func sharedAttacks() []attack {
	return []attack{{
		group: "shared", name: "an extension header whose length changes meanwhile", from: "outcast friend", how: "shared headers", stands: either, families: "6", aim: shaped(peersOf(shut), openFirst),
	}}
}

func tcpAttacks() []attack {
	var all []attack
	for _, k := range []struct{ name, flags string }{
		{"a SYN with data", "S"}, {"data without a SYN", "PA"}, {"ACK", "A"}, {"SYN+ACK first", "SA"}, {"RST", "R"}, {"RST+ACK", "RA"}, {"FIN", "F"}, {"FIN+ACK", "FA"},
		{"all flags at once", "FSRPAU"}, {"Xmas tree", "FPU"}, {"no flags", ""}, {"SYN+FIN", "SF"}, {"SYN+RST", "SR"}, {"URG", "U"},
	} {
		all = append(all,
			attack{group: "tcp", name: k.name, from: "raw", how: "tcp", detail: k.flags, stands: ingress, aim: victimsAt(open)},
			attack{group: "tcp", name: k.name + " to another port", from: rawOnes, how: "tcp", detail: k.flags, stands: either, aim: peersOf(shut)})
	}
	flow := func(v view, j *job.Job) {
		j.Claim, j.FromPort = v.home.pods["friend"].ip[v.family], 41000
	}
	return append(all,
		attack{group: "tcp", name: "a SYN with data and a cookie", from: "raw", how: "tcp-fast-open", stands: ingress, aim: victimsAt(open)},
		attack{group: "tcp", name: "from port 0", from: "raw", how: "tcp", detail: "S", stands: ingress, aim: shaped(victimsAt(open), from(1))},
		attack{group: "tcp", name: "to port 0", from: rawOnes, how: "tcp", detail: "S", stands: either, aim: peersOf(0)},
		attack{group: "tcp", name: "SYN+ACK from port 443", from: "raw", how: "tcp", detail: "SA", stands: ingress, aim: shaped(victimsAt(open), from(443))},
		attack{group: "tcp", name: "data in a friend's connection", from: "raw", how: "tcp-flood", detail: "PA", stands: ownSource, control: nothing, aim: shaped(one("near", open), flow)},
		attack{group: "tcp", name: "resets in a friend's connection", from: "raw", how: "tcp-flood", detail: "R", stands: ownSource, control: nothing, aim: shaped(one("near", open), flow)},
		attack{group: "tcp", name: "a SYN to a service", from: "raw", how: "tcp", detail: "S", stands: ingress, aim: serviceAddresses(open)},
		attack{group: "tcp", name: "a SYN to a node port", from: "raw", how: "tcp", detail: "S", stands: ingress, byNode: true, control: nothing, aim: nodePortsOf(0)},
		attack{group: "tcp", name: "a SYN to a host port", from: "raw", how: "tcp", detail: "S", stands: ingress, aim: hostPorts},
		attack{group: "tcp", name: "ACK to a node port", from: "raw", how: "tcp", detail: "PA", stands: ingress, control: nothing, aim: nodePortsOf(0)},
	)
}

func udpAttacks() []attack {
	add := func(name, from string, aim func(v view) []job.Job) attack {
		return attack{group: "udp", name: name, from: from, how: "udp", stands: either, aim: aim}
	}
	return []attack{
		add("a datagram", rawOnes, peersOf(shutUDP)),
		add("a datagram from port 53", rawOnes, shaped(peersOf(shutUDP), from(53))),
		add("a datagram to the port that is open by TCP", rawOnes, peersOf(open)),
		add("a datagram to port 0", rawOnes, peersOf(0)),
		add("a datagram to a high port, like an answer", rawOnes, shaped(peersOf(45000), from(53))),
		add("a datagram to a service", "raw", serviceAddresses(shutUDP)),
		add("a datagram to a node port", "raw", nodePortsOf(1)),
	}
}

func fragmentAttacks() []attack {
	add := func(name, families string, ctl control, port int) attack {
		return attack{group: "fragments", name: "fragments: " + name, from: rawOnes, how: "fragments", detail: name, stands: either, families: families, control: ctl, aim: shaped(peersOf(port), openFirst)}
	}
	all := []attack{
		add("in two", "46", samePacket, shutUDP), add("TCP in two", "46", samePacket, shut), add("ports rewritten", "46", samePacket, shutUDP),
		add("TCP ports rewritten", "46", samePacket, shut), add("no end", "46", samePacket, shutUDP), add("another protocol then", "46", samePacket, shutUDP),
		add("atomic", "6", samePacket, shutUDP), add("in a fragment", "6", nothing, shutUDP), add("ports in second", "6", nothing, shutUDP),
		add("later in first", "6", nothing, shutUDP), add("later in atomic", "6", nothing, shutUDP), add("reserved bit", "4", nothing, shutUDP),
	}
	for i := range all {
		if all[i].detail == "TCP ports rewritten" {
			// Of a friend's, the first part and the last one are left: a segment to the port that is open to it.
			all[i].from = "raw outcast"
		}
	}
	for _, name := range []string{"tiny first", "later first", "only a later one", "TCP tail rewritten", "protocol changes", "past the end"} {
		port := shutUDP
		if name == "tiny first" || name == "TCP tail rewritten" {
			port = shut
		}
		all = append(all, add(name, "46", nothing, port))
	}
	return all
}

func headerAttacks() []attack {
	var all []attack
	add := func(kind, detail, families string, ctl control, change func(view, *job.Job)) {
		all = append(all, attack{group: "headers", name: kind + ": " + detail, from: rawOnes, how: kind, detail: detail, stands: either, families: families, control: ctl, aim: shaped(peersOf(shutUDP), change)})
	}
	keep := func(view, *job.Job) {}
	for _, d := range []string{"hop-by-hop", "router alert", "destination options", "unknown option", "routing 0", "routing 2", "routing 4"} {
		add("extension", d, "6", samePacket, keep)
	}
	for _, d := range []string{"jumbo", "hop-by-hop in the middle", "seven headers", "authentication", "mobility", "host identity", "no next header"} {
		add("extension", d, "6", nothing, keep)
	}
	for _, d := range []string{"routing 0 over another", "routing 2 over another", "routing 3 over another", "routing 4 over another"} {
		add("extension", d, "6", nothing, overFriend)
		add("extension", d, "6", nothing, func(v view, j *job.Job) { j.Over, j.At = v.home.nodes[0][v.family], j.At+" over the own node" })
	}
	for _, d := range []string{"record route", "timestamp", "router alert", "forty bytes of nothing"} {
		add("option", d, "4", samePacket, keep)
	}
	add("option", "security", "4", nothing, keep)
	add("option", "source route at its end", "4", nothing, overFriend)
	for _, d := range []string{"loose source route", "strict source route"} {
		add("option", d, "4", nothing, overFriend)
		add("option", d, "4", nothing, func(v view, j *job.Job) { j.Over, j.At = v.home.nodes[0][v.family], j.At+" over the own node" })
	}
	for _, d := range []string{"short", "long", "zero", "header beyond the end", "another version", "bad checksum"} {
		add("length", d, "46", nothing, keep)
	}
	for _, n := range []int{0, 2, 4, 8, 33, 41, 46, 47, 50, 51, 88, 89, 94, 97, 103, 108, 112, 115, 136, 137, 143, 253, 255} {
		add("protocol", fmt.Sprint(n), "4", nothing, keep)
		if n != 0 && n != 43 && n != 44 && n != 60 {
			add("protocol", fmt.Sprint(n), "6", nothing, keep)
		}
	}
	sctp := attack{group: "headers", name: "SCTP's first packet", from: rawOnes, how: "sctp", stands: either, aim: peersOf(open)}
	return append(all, sctp)
}

func icmpAttacks() []attack {
	var all []attack
	add := func(how, detail, families string, ctl control, change func(view, *job.Job)) {
		all = append(all, attack{group: "icmp", name: how + ": " + detail, from: rawOnes, how: how, detail: detail, stands: either, families: families, control: ctl, aim: shaped(peersOf(open), change)})
	}
	keep := func(view, *job.Job) {}
	for _, d := range []string{"echo", "echo reply"} {
		add("icmp", d, "46", samePacket, keep)
	}
	add("icmp", "unknown", "46", samePacket, keep)
	add("icmp", "extended echo", "46", samePacket, keep)
	add("icmp", "timestamp", "4", samePacket, keep)
	add("icmp", "address mask", "4", samePacket, keep)
	add("icmp", "node information", "6", samePacket, keep)
	flow := func(v view, j *job.Job) { j.Over, j.FromPort = v.home.pods["friend"].ip[v.family], 41000 }
	posing := func(v view, j *job.Job) { flow(v, j); j.Claim = v.home.pods["friend"].ip[v.family] }
	router := func(v view, j *job.Job) { flow(v, j); j.Claim = v.me.gateway[v.family] }
	for _, d := range []string{"port unreachable", "too big", "time exceeded", "parameter problem"} {
		add("quote", d, "46", nothing, flow)
		add("quote", d, "46", nothing, posing)
		add("quote", d, "46", nothing, keep)
	}
	add("quote", "redirect", "4", nothing, router)
	add("quote", "too big", "46", nothing, router)
	add("quote", "source quench", "4", nothing, flow)
	add("quote", "unknown error", "6", nothing, flow)
	return all
}

func linkAttacks() []attack {
	var all []attack
	add := func(how, detail, families string, ctl control, aim func(v view) []job.Job) *attack {
		all = append(all, attack{group: "link", name: how + ": " + detail, from: "raw", how: how, detail: detail, stands: ingress, families: families, control: ctl, aim: aim})
		return &all[len(all)-1]
	}
	for _, d := range []string{"direct", "broadcast", "multicast"} {
		aim := onLink(shutUDP)
		if d == "broadcast" {
			aim = shaped(aim, func(_ view, j *job.Job) { j.MAC = "broadcast" })
		}
		add("ethernet", d, "46", nothing, aim)
	}
	for _, d := range []string{"VLAN", "VLAN of priority", "802.1ad", "two VLANs", "LLC", "SNAP", "the other family's type", "MPLS", "PPPoE", "unknown type", "spanning tree", "link layer discovery", "EAPOL"} {
		add("ethernet", d, "46", nothing, onLink(shutUDP))
	}
	claims := map[string]func(v view) string{
		"a friend's address":     func(v view) string { return v.home.pods["friend"].ip[v.family] },
		"the gateway's address":  func(v view) string { return v.me.gateway[v.family] },
		"the receiver's address": func(v view) string { return v.home.pods["near"].ip[v.family] },
	}
	names := []string{"a friend's address", "the gateway's address", "the receiver's address"}
	for _, d := range []string{"request", "reply", "long addresses"} {
		for _, who := range names {
			a := add("arp", d, "4", nothing, shaped(onLink(0), claiming(claims[who])))
			a.name, a.stands = "ARP "+d+" with "+who, ownSource
		}
	}
	add("arp", "with much data", "4", nothing, onLink(0))
	add("arp", "reverse", "4", nothing, onLink(0))
	for _, d := range []string{"neighbour advertisement", "neighbour solicitation"} {
		for _, who := range names {
			about := claims[who]
			a := add("nd", d, "6", nothing, shaped(onLink(0), func(v view, j *job.Job) {
				j.Over = about(v)
				if d == "neighbour solicitation" {
					j.Claim = j.Over // asking about somebody is free, in their name it isn't
				}
			}))
			a.name, a.stands = d+" with "+who, ownSource
		}
	}
	for _, d := range []string{"router advertisement", "redirect", "with hop limit 64", "with much data"} {
		add("nd", d, "6", nothing, onLink(0))
	}
	gateway := add("nd", "router advertisement", "6", nothing, shaped(onLink(0), claiming(func(v view) string { return v.me.linkRouter })))
	gateway.name, gateway.stands = "router advertisement from the gateway's link-local address", ownSource
	posing := add("nd", "neighbour advertisement", "6", nothing, shaped(onLink(0), func(v view, j *job.Job) { j.Claim, j.Over = v.me.linkRouter, v.me.linkRouter }))
	posing.name, posing.stands = "neighbour advertisement with the gateway's link-local address", ownSource
	for _, d := range []string{"neighbour solicitation", "router solicitation", "with hop limit 64"} {
		a := add("nd", d, "6", nothing, func(v view) []job.Job {
			return append(one("next", 0)(v), at("far of the other cluster", v.away.pods["far"].ip[v.family], 0))
		})
		a.name = d + " to another link"
	}
	for _, d := range []string{"report", "report of version 2", "report with much data", "report from a global address", "query"} {
		add("mld", d, "6", nothing, func(v view) []job.Job {
			jobs := onLink(0)(v)
			group := at("all hosts", "ff02::1", 0)
			group.MAC = "33:33:00:00:00:01"
			return append(jobs, group, at("next", v.home.pods["next"].ip[six], 0), at("far of the other cluster", v.away.pods["far"].ip[six], 0))
		})
	}
	add("udp", "to all", "46", nothing, func(v view) (jobs []job.Job) {
		for _, to := range [2][]string{{"255.255.255.255", "224.0.0.1", "224.0.0.251", subnetEnds(v.me.ip[four])[1]}, {"ff02::1", "ff02::fb", "ff0e::1"}}[v.family] {
			j := at(to, to, shutUDP)
			j.MAC = "broadcast"
			jobs = append(jobs, j)
		}
		return jobs
	})
	add("icmp", "echo", "46", nothing, func(v view) []job.Job {
		j := at("all hosts", pair{"224.0.0.1", "ff02::1"}[v.family], 0)
		j.MAC = "broadcast"
		return []job.Job{j}
	}).name = "echo to all"
	return all
}

func tunnelAttacks() []attack {
	var all []attack
	for _, d := range []string{"IP in IP", "GRE", "GRE with a frame", "VXLAN", "Geneve", "FOU", "WireGuard", "WireGuard's data"} {
		all = append(all, attack{group: "tunnels", name: "inside " + d, from: "raw outcast", how: "tunnel", detail: d, stands: either, control: nothing, aim: func(v view) (jobs []job.Job) {
			for _, inner := range []struct{ name, to, as string }{
				{"near", v.home.pods["near"].ip[v.family], v.home.pods["friend"].ip[v.family]},
				{"far of the other cluster", v.away.pods["far"].ip[v.family], v.home.pods["friend"].ip[v.family]},
			} {
				outer := append(nodesAt(0)(v), at("near", v.home.pods["near"].ip[v.family], 0))
				for _, j := range outer {
					j.At, j.Over, j.Claim = inner.name+" by "+j.At, inner.to, inner.as
					jobs = append(jobs, j)
				}
			}
			return jobs
		}})
	}
	return all
}

// outcastAttacks are those of pods that may call nobody but friends.
func outcastAttacks() []attack {
	add := func(name, from, how, detail string, aim func(v view) []job.Job) attack {
		return attack{group: "outcasts", name: name, from: from, how: how, detail: detail, stands: isolation, control: nothing, aim: aim}
	}
	dns := func(v view) []job.Job {
		return []job.Job{at("the DNS service", v.home.services["kube-dns"][v.family], 53)}
	}
	friends := func(v view) []job.Job {
		return append(append(one("friend", open)(v), one("ally", open)(v)...), at("friends by their service", v.home.services["friends"][v.family], open))
	}
	may := add("an outcast calls friends", outcasts, "connect", "", friends)
	may.allowed = true
	own := add("an outcast calls its own node, which isolation doesn't mean", outcasts, "connect", "", func(v view) []job.Job {
		return append(ownNodeAt(kubelet)(v), ownNodeAt(hostTCP)(v)...)
	})
	own.allowed = true
	mapped := add("an outcast connects to an IPv4 address in an IPv6 socket", outcasts, "mapped", "", everywhere)
	mapped.families = "4"
	return []attack{
		may, own, mapped,
		add("an outcast connects", outcasts, "connect", "", everywhere),
		add("an outcast sends a SYN", "outcast", "tcp", "S", everywhere),
		add("an outcast sends ACK", "outcast", "tcp", "PA", everywhere),
		add("an outcast asks the DNS", outcasts, "datagram", "", dns),
		add("an outcast asks the DNS, unconnected", outcasts, "unconnected", "", dns),
		add("an outcast asks the DNS, raw", "outcast", "udp", "", dns),
		add("an outcast sends datagrams to other nodes", outcasts, "datagram", "", otherNodesAt(hostUDP)),
		add("an outcast pings", "outcast", "icmp", "echo", everywhere),
		add("an outcast sends SCTP to services", "outcast", "sctp", "", everywhere),
		add("an outcast connects to node ports", outcasts, "connect", "", nodePortsOf(0)),
		add("an outcast sends a datagram to node ports", outcasts, "unconnected", "", nodePortsOf(1)),
		add("an outcast takes a friend's address", "outcast", "tcp", "S", shaped(everywhere, claiming(func(v view) string { return v.home.pods["friend"].ip[v.family] }))),
	}
}

// nodeAttacks go to the own node and to others, where a policy denies them.
func nodeAttacks() []attack {
	add := func(name, from, how, detail, families string, ctl control, aim func(v view) []job.Job) attack {
		return attack{group: "nodes", name: name, from: from, how: how, detail: detail, stands: nodesDeny, families: families, when: nodesShut, control: ctl, aim: aim}
	}
	link := func(port int) func(v view) []job.Job {
		return func(v view) []job.Job {
			return []job.Job{at("the gateway's link-local address", v.me.linkRouter, port)}
		}
	}
	all := []attack{
		add("connect to the kubelet", attackers, "connect", "", "46", samePacket, ownNodeAt(kubelet)),
		add("connect to a pod of the node's network", attackers, "connect", "", "46", samePacket, ownNodeAt(hostTCP)),
		add("connect to other nodes", attackers, "connect", "", "46", nothing, otherNodesAt(kubelet)),
		add("connect to nodes by their service", attackers, "connect", "", "46", samePacket, func(v view) []job.Job {
			return []job.Job{at("a service of nodes", v.home.services["hosts"][v.family], 80)}
		}),
		add("a datagram to nodes by their service", attackers, "unconnected", "", "46", samePacket, func(v view) []job.Job {
			return []job.Job{at("a service of nodes", v.home.services["hosts"][v.family], 81)}
		}),
		add("a datagram to a pod of the node's network", attackers, "datagram", "", "46", samePacket, ownNodeAt(hostUDP)),
		add("an unconnected datagram to a pod of the node's network", attackers, "unconnected", "", "46", samePacket, ownNodeAt(hostUDP)),
		add("connect to the node's link-local address", attackers, "linked", "", "6", nothing, link(kubelet)),
		add("connect to the node's link-local address from the global one", attackers, "linked", "global source", "6", nothing, link(kubelet)),
		add("a SYN to the node's link-local address", "raw", "tcp", "S", "6", nothing, shaped(link(kubelet), func(_ view, j *job.Job) { j.MAC = "gateway" })),
		add("a datagram to the node's link-local address", "raw", "udp", "", "6", nothing, shaped(link(hostUDP), func(_ view, j *job.Job) { j.MAC = "gateway" })),
		add("a SYN to the kubelet", "raw", "tcp", "S", "46", samePacket, ownNodeAt(kubelet)),
		add("a datagram around the node", "raw", "udp", "", "46", nothing, aroundNodes(hostUDP)),
		add("an unconnected datagram around the node", attackers, "unconnected", "", "4", nothing, aroundNodes(hostUDP)),
		add("a SYN around the node", "raw", "tcp", "S", "46", nothing, aroundNodes(kubelet)),
		add("fragments to the node", "raw", "fragments", "in two", "46", samePacket, ownNodeAt(hostUDP)),
		add("an IPv4 address of the node in an IPv6 socket", attackers, "mapped", "", "4", samePacket, ownNodeAt(kubelet)),
		add("a node port's number that is the kubelet's, by loopback", attackers, "connect", "", "46", nothing, func(v view) []job.Job {
			return []job.Job{at("loopback", pair{"127.0.0.1", "::1"}[v.family], hostTCP)}
		}),
	}
	other := add("another port of the own node stays open", attackers, "connect", "", "46", samePacket, ownNodeAt(10256))
	other.allowed = true
	return append(all, other)
}
