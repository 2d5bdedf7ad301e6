// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

// at is a job for an address.
func at(what, to string, port int) job.Job { return job.Job{At: what, To: to, Port: uint16(port)} }

// Which pods of which cluster are attacked from home.
var victims = []struct {
	name string
	away bool
}{{name: "near"}, {name: "next"}, {name: "walled"}, {name: "far", away: true}, {name: "near", away: true}, {name: "walled", away: true}}

func (v view) place(away bool) *place {
	if away {
		return v.away
	}
	return v.home
}

// victimsAt aims at all pods that are closed.
func victimsAt(port int) func(v view) []job.Job {
	return func(v view) (jobs []job.Job) {
		for _, who := range victims {
			p := v.place(who.away)
			jobs = append(jobs, at(who.name+" of "+p.name, p.pods[who.name].ip[v.family], port))
		}
		return jobs
	}
}

// openTo aims at those of them that let friends of this cluster in: a NetworkPolicy means no other cluster's.
func openTo(port int) func(v view) []job.Job {
	return func(v view) (jobs []job.Job) {
		for _, who := range victims {
			p := v.place(who.away)
			if !who.away || who.name != "near" {
				jobs = append(jobs, at(who.name+" of "+p.name, p.pods[who.name].ip[v.family], port))
			}
		}
		return jobs
	}
}

// one aims at a single pod at home.
func one(name string, port int) func(v view) []job.Job {
	return func(v view) []job.Job { return []job.Job{at(name, v.home.pods[name].ip[v.family], port)} }
}

// peersOf aims at whom this pod may call, at another port: victims for friends, friends for outcasts.
func peersOf(port int) func(v view) []job.Job {
	return func(v view) []job.Job {
		if v.me.role == "outcast" {
			return append(one("friend", port)(v), one("ally", port)(v)...)
		}
		return victimsAt(port)(v)
	}
}

// shaped changes the jobs of another aim.
func shaped(aim func(v view) []job.Job, change func(v view, j *job.Job)) func(v view) []job.Job {
	return func(v view) []job.Job {
		jobs := aim(v)
		for i := range jobs {
			change(v, &jobs[i])
		}
		return jobs
	}
}

func from(port int) func(view, *job.Job) {
	return func(_ view, j *job.Job) { j.FromPort = uint16(port) }
}

// openFirst shows a port that is open for friends.
func openFirst(_ view, j *job.Job) { j.Open = open }

// claiming writes source addresses that aren't the pod's.
func claiming(who func(v view) string) func(view, *job.Job) {
	return func(v view, j *job.Job) { j.Claim = who(v) }
}

// services aims at everything that leads to victims but their own addresses.
func serviceAddresses(port int) func(v view) []job.Job {
	return func(v view) []job.Job {
		return []job.Job{
			at("a service", v.home.services["victims"][v.family], port),
			at("a balanced service", v.home.services["victims-balanced"][v.family], port),
			at("a global service", v.home.services["far"][v.family], port),
			at("an external IP", pair{external4, external6}[v.family], port),
			at("a balancer's address", pair{balancer4, balancer6}[v.family], port),
			at("a service of the other cluster", v.away.services["victims"][v.family], port),
		}
	}
}

// nodePorts aims at node ports of all nodes. udp is 0 for TCP, 1 for UDP.
func nodePortsOf(udp int) func(v view) []job.Job {
	return func(v view) (jobs []job.Job) {
		add := func(what, to string) {
			jobs = append(jobs, at("a port of "+what, to, nodePort+udp), at("a local port of "+what, to, localPort+udp))
		}
		add("the own node", v.home.nodes[0][v.family])
		add("the gateway", v.me.gateway[v.family])
		add("another node", v.home.nodes[1][v.family])
		add("a node of the other cluster", v.away.nodes[0][v.family])
		add("another node of the other cluster", v.away.nodes[1][v.family])
		return jobs
	}
}

func hostPorts(v view) []job.Job {
	return []job.Job{
		at("a host port of the own node", v.home.nodes[0][v.family], hostPort),
		at("a host port of the gateway", v.me.gateway[v.family], hostPort),
		at("a host port of the other cluster's node", v.away.nodes[0][v.family], hostPort),
	}
}

// onLink aims at victims of the same node by their hardware address, and by the gateway's.
func onLink(port int) func(v view) []job.Job {
	return func(v view) (jobs []job.Job) {
		for _, name := range []string{"near", "walled"} {
			to := v.home.pods[name]
			direct, routed := at(name+" by its hardware address", to.ip[v.family], port), at(name+" by the gateway's", to.ip[v.family], port)
			direct.MAC, routed.MAC = to.mac, "gateway"
			jobs = append(jobs, direct, routed)
		}
		return jobs
	}
}

// nodesAt aims at a port of nodes, by all their addresses.
func nodesAt(port int) func(v view) []job.Job {
	return func(v view) []job.Job {
		return append(ownNodeAt(port)(v), otherNodesAt(port)(v)...)
	}
}

func ownNodeAt(port int) func(v view) []job.Job {
	return func(v view) []job.Job {
		return []job.Job{at("the own node", v.home.nodes[0][v.family], port), at("the gateway", v.me.gateway[v.family], port)}
	}
}

func otherNodesAt(port int) func(v view) []job.Job {
	return func(v view) []job.Job {
		return []job.Job{at("another node", v.home.nodes[1][v.family], port), at("a node of the other cluster", v.away.nodes[0][v.family], port)}
	}
}

// aroundNodes aims at addresses that a node takes as its own, though it doesn't have them: broadcast, anycast, groups.
func aroundNodes(port int) func(v view) []job.Job {
	return func(v view) (jobs []job.Job) {
		for _, own := range []string{v.home.nodes[0][v.family], v.me.ip[v.family]} {
			for _, end := range subnetEnds(own) {
				j := at("the end "+end+" of a subnet", end, port)
				j.MAC = "gateway"
				jobs = append(jobs, j)
			}
		}
		groups := [2][]string{{"224.0.0.1", "255.255.255.255"}, {"ff02::1", "ff02::2"}}
		for _, g := range groups[v.family] {
			j := at("all hosts "+g, g, port)
			j.MAC = "gateway"
			jobs = append(jobs, j)
		}
		return jobs
	}
}

// everywhere aims at what an outcast may reach nothing of.
func everywhere(v view) []job.Job {
	return []job.Job{
		at("the Kubernetes API's service", v.home.services["kubernetes"][v.family], 443),
		at("the API server", pair{fmt.Sprintf("10.%d1.0.1", number(v.home)), fmt.Sprintf("fd00:%d1::1", number(v.home))}[v.family], 6443),
		at("the DNS service by TCP", v.home.services["kube-dns"][v.family], 53),
		at("the other cluster's friend", v.away.pods["friend"].ip[v.family], open),
		at("the other cluster's service", v.away.services["friends"][v.family], open),
		at("a friend's other port", v.home.pods["friend"].ip[v.family], shut),
		at("friends' other port by their service", v.home.services["friends"][v.family], shut),
		at("a service of nodes", v.home.services["hosts"][v.family], 80),
		at("metadata", pair{"169.254.169.254", "fd00:ec2::254"}[v.family], 80),
		at("another node", v.home.nodes[1][v.family], kubelet),
		at("another node's pod", v.home.nodes[1][v.family], hostTCP),
		at("a node of the other cluster", v.away.nodes[0][v.family], kubelet),
		at("the shared store", pair{"10.99.0.10", ""}[v.family], 2379),
		at("the world", pair{"10.99.0.20", ""}[v.family], 80),
		at("near", v.home.pods["near"].ip[v.family], open),
		at("a bystander", v.home.pods["bystander"].ip[v.family], open),
	}
}

func number(p *place) int { return map[string]int{"east": 1, "west": 2}[p.name] }
