// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

var genCiliumLabels = map[string][]string{
	"app": {"web", "db"}, "tier": {"1", "web"},
	"io.kubernetes.pod.namespace":                                {"a", "b"},
	"io.cilium.k8s.namespace.labels.team":                        {"red", "blue"},
	"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": {"a", "b"},
	"io.cilium.k8s.policy.cluster":                               {"east", "west"},
	"io.cilium.k8s.policy.serviceaccount":                        genAccounts,
}

func genCiliumRequirement(t *rapid.T, labels ...string) ciliumRequirement {
	r := ciliumRequirement{
		prefix: rapid.SampledFrom([]string{"", "k8s:", "any:"}).Draw(t, "prefix"),
		label:  rapid.SampledFrom(labels).Draw(t, "label"),
		op: rapid.SampledFrom([]metav1.LabelSelectorOperator{
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist,
		}).Draw(t, "operator"),
	}
	values := genCiliumLabels[r.label]
	if values == nil {
		values = []string{"0", "1"} // of those that are left out
	}
	if r.op == metav1.LabelSelectorOpIn || r.op == metav1.LabelSelectorOpNotIn {
		r.values = rapid.SliceOfNDistinct(rapid.SampledFrom(values), 1, 2, rapid.ID[string]).Draw(t, "values")
	}
	return r
}

func genCiliumPeer(t *rapid.T) []ciliumRequirement {
	labels := append(sortedKeys(genCiliumLabels), "app", "app", leftOut[0])
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ciliumRequirement { return genCiliumRequirement(t, labels...) }), 0, 2).Draw(t, "peer")
}

func genCiliumSays(t *rapid.T, deny bool) (r ciliumSays) {
	peers := func(n int) int { return rapid.IntRange(0, n).Draw(t, "peers") }
	switch rapid.IntRange(0, 9).Draw(t, "kind of peers") {
	case 8:
		list := rapid.SliceOfN(rapid.Custom(genServiceName), peers(1), 2).Draw(t, "services")
		r.services = &list
	case 0, 1, 2:
		list := rapid.SliceOfN(rapid.Custom(genCiliumPeer), peers(1), 2).Draw(t, "endpoints")
		r.endpoints = &list
	case 3, 4:
		all := []string{"all", "world", "cluster", "host", "remote-node", "none", "init", "kube-apiserver"}
		list := rapid.SliceOfN(rapid.SampledFrom(all), peers(1), 2).Draw(t, "entities")
		r.entities = &list
	case 5:
		list := rapid.SliceOfN(rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "::/0"}), peers(1), 2).Draw(t, "cidrs")
		r.cidrs = &list
	case 6:
		list := []ciliumBlock{}
		for range peers(2) {
			cidr, except := genCIDR(t)
			list = append(list, ciliumBlock{CIDR: cidr, Except: except})
		}
		r.cidrSets = &list
	case 7:
		r.unenforced = rapid.SampledFrom([]string{"Groups", "Nodes"}).Draw(t, "unenforced")
	}
	switch rapid.IntRange(0, 7).Draw(t, "kind of ports") {
	case 0, 1:
		return r
	case 2:
		r.icmps = true
		return r
	case 3:
		r.seven = !deny
	}
	r.ports = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ciliumOpens {
		p := ciliumOpens{
			Port:     rapid.SampledFrom([]string{"80", "443", "8080", "0", "http", "admin", "65535"}).Draw(t, "port"),
			Protocol: rapid.SampledFrom([]string{"", "ANY", "TCP", "udp", "SCTP"}).Draw(t, "protocol"),
		}
		if p.Port == "80" {
			p.EndPort = rapid.SampledFrom([]int32{0, 80, 81, 9000, 65535}).Draw(t, "end")
		}
		return p
	}), 1, 2).Draw(t, "ports")
	return r
}

func genCilium(t *rapid.T, namespaced bool) (out []ciliumMeans) {
	labels := []string{"app", "tier", "io.cilium.k8s.policy.serviceaccount", "io.cilium.k8s.namespace.labels.team", leftOut[0]}
	if !namespaced {
		labels = append(labels, "io.kubernetes.pod.namespace", "io.cilium.k8s.policy.cluster")
	}
	for range rapid.IntRange(1, 2).Draw(t, "specs") {
		m := ciliumMeans{subject: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) ciliumRequirement { return genCiliumRequirement(t, labels...) }), 0, 1).Draw(t, "subjects")}
		for dir := range m.sections {
			s := &m.sections[dir]
			for range rapid.IntRange(0, 2).Draw(t, "allow") {
				s.allow = append(s.allow, genCiliumSays(t, false))
			}
			for range rapid.IntRange(0, 1).Draw(t, "deny") {
				s.deny = append(s.deny, genCiliumSays(t, true))
			}
			if Direction(dir) == Ingress {
				for _, list := range [][]ciliumSays{s.allow, s.deny} {
					for i := range list {
						list[i].services = nil
					}
				}
			}
			if rapid.IntRange(0, 2).Draw(t, "default deny?") == 0 {
				is := rapid.Bool().Draw(t, "default deny")
				s.defaultDeny = &is
			}
		}
		out = append(out, m)
	}
	return out
}

// ciliumObject is how a policy is written: with one spec, with several, or with both.
func ciliumObject(t *rapid.T, list []ciliumMeans) map[string]any {
	out := map[string]any{}
	if rapid.Bool().Draw(t, "spec?") {
		out["spec"] = list[0].spec()
		list = list[1:]
	}
	var specs []any
	for _, m := range list {
		specs = append(specs, m.spec())
	}
	if specs != nil {
		out["specs"] = specs
	}
	return out
}
