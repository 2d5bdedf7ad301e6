// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package expect

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/explain"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/manifest"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Problem is something wrong in a file.
type Problem struct {
	File    string
	Line    int
	Message string
}

func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message) }

// File is a file of expectations, and the mesh that they are about.
type File struct {
	Path       string
	Clusters   map[string]ClusterSpec
	Namespaces map[string]map[string]string
	Pods       []*world.Pod
	Nodes      []*world.Node
	Expect     []Expectation
}

// ClusterSpec describes a cluster.
type ClusterSpec struct {
	Labels       map[string]string `json:"labels"`
	PodCIDRs     []netip.Prefix    `json:"podCIDRs"`
	ServiceCIDRs []netip.Prefix    `json:"serviceCIDRs"`
	// Policies are the folders or files, from this file's folder on, whose policies the cluster has; absent: all.
	Policies []string `json:"policies"`
}

// Expectation is what must become of a connection.
type Expectation struct {
	Line    int
	From    explain.End
	To      explain.Target
	Verdict explain.Verdict
	By      string // the policy, or the rule, that must decide
	Why     string
}

type fileSpec struct {
	Clusters   map[string]ClusterSpec       `json:"clusters"`
	Namespaces map[string]map[string]string `json:"namespaces"`
	Pods       []podSpec                    `json:"pods"`
	Nodes      []nodeSpec                   `json:"nodes"`
	Expect     []expectSpec                 `json:"expect"`
}

type podSpec struct {
	Name           string            `json:"name"`
	Labels         map[string]string `json:"labels"`
	ServiceAccount string            `json:"serviceAccount"`
	Ports          map[string]uint16 `json:"ports"`
	Addresses      []netip.Addr      `json:"addresses"`
	Node           string            `json:"node"`
	HostNetwork    bool              `json:"hostNetwork"`
}

type nodeSpec struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Addresses []netip.Addr      `json:"addresses"`
}

type expectSpec struct {
	From    string          `json:"from"`
	To      string          `json:"to"`
	Verdict explain.Verdict `json:"verdict"`
	By      string          `json:"by"`
	Why     string          `json:"why"`
}

// Parse reads a file of expectations from those of its documents that are no objects. Every mistake has its line; an unknown
// field is one.
func Parse(path string, docs []manifest.Document) (File, []Problem) {
	p := parser{file: File{Path: path}}
	if len(docs) != 1 {
		line := 1
		if len(docs) > 1 {
			line = docs[1].Positions().First()
		}
		p.fail(line, "%d documents hold expectations, a file has one of them", len(docs))
		return p.file, p.problems
	}
	doc := docs[0]
	raw, bad := doc.JSON()
	if bad != nil {
		p.fail(bad.Line, "%s", bad.Message)
		return p.file, p.problems
	}
	p.pos = doc.Positions()
	var spec fileSpec
	for _, w := range manifest.Decode(raw, &spec, p.pos) {
		p.fail(w.Line, "%s", w.Message)
	}
	if len(p.problems) > 0 {
		return p.file, p.problems
	}
	p.take(spec)
	return p.file, p.problems
}

type parser struct {
	file     File
	pos      manifest.Positions
	problems []Problem
}

func (p *parser) fail(line int, format string, args ...any) {
	p.problems = append(p.problems, Problem{p.file.Path, line, fmt.Sprintf(format, args...)})
}

func (p *parser) take(spec fileSpec) {
	p.file.Clusters, p.file.Namespaces = spec.Clusters, spec.Namespaces
	if len(spec.Clusters) > 255 {
		p.fail(p.pos.Of("clusters"), "a mesh has at most 255 clusters")
	}
	for name := range spec.Clusters {
		if e, err := explain.ParseEnd(name + "/namespace/pod"); err != nil || e.Kind != explain.KindPod {
			p.fail(p.pos.Of("clusters."+name), "%q can't be the name of a cluster", name)
		}
	}
	seen := map[explain.End]bool{}
	for i, in := range spec.Pods {
		p.pod(fmt.Sprintf("pods[%d]", i), in, seen)
	}
	for i, in := range spec.Nodes {
		field := fmt.Sprintf("nodes[%d]", i)
		e, err := explain.ParseEnd("node/" + in.Name)
		if err != nil || e.Kind != explain.KindNode || !p.known(field, e.Cluster) {
			p.fail(p.pos.Of(field+".name"), "%s.name: %q is not [cluster/]node", field, in.Name)
			continue
		}
		p.file.Nodes = append(p.file.Nodes, &world.Node{Cluster: e.Cluster, Name: e.Name, Labels: in.Labels, Addresses: in.Addresses})
	}
	if len(spec.Expect) == 0 {
		p.fail(p.pos.First(), "expect is missing: nothing is expected, so nothing would be tested")
	}
	for i, in := range spec.Expect {
		p.expectation(fmt.Sprintf("expect[%d]", i), in)
	}
}

func (p *parser) known(field, cluster string) bool {
	if _, is := p.file.Clusters[cluster]; cluster != "" && !is && len(p.file.Clusters) > 0 {
		p.fail(p.pos.Of(field), "%s: cluster %s is not in clusters", field, cluster)
		return false
	}
	return true
}

func (p *parser) pod(field string, in podSpec, seen map[explain.End]bool) {
	e, err := explain.ParseEnd(in.Name)
	switch {
	case err != nil || e.Kind != explain.KindPod:
		p.fail(p.pos.Of(field+".name"), "%s.name: %q is not [cluster/]namespace/pod", field, in.Name)
		return
	case seen[e]:
		p.fail(p.pos.Of(field+".name"), "%s.name: %s is there twice", field, in.Name)
		return
	case !p.known(field+".name", e.Cluster):
		return
	}
	seen[e] = true
	pod := &world.Pod{
		Cluster: e.Cluster, Namespace: e.Namespace, Name: e.Name, Node: in.Node, ServiceAccount: in.ServiceAccount,
		Labels: in.Labels, Addresses: in.Addresses, HostNetwork: in.HostNetwork,
	}
	for _, name := range sorted(in.Ports) {
		port := world.Port{Number: in.Ports[name], Proto: record.TCP}
		var proto string
		var has bool
		if port.Name, proto, has = strings.Cut(name, "/"); has {
			switch proto {
			case "TCP":
			case "UDP":
				port.Proto = record.UDP
			case "SCTP":
				port.Proto = record.SCTP
			default:
				p.fail(p.pos.Of(field+".ports"), "%s.ports: protocol %q of %s is none of TCP, UDP, SCTP", field, proto, strconv.Quote(name))
			}
		}
		if port.Number == 0 || port.Name == "" {
			p.fail(p.pos.Of(field+".ports"), "%s.ports: give names with numbers from 1 on, as http: 8080 or dns/UDP: 53", field)
		}
		pod.Ports = append(pod.Ports, port)
	}
	p.file.Pods = append(p.file.Pods, pod)
}

func (p *parser) expectation(field string, in expectSpec) {
	out := Expectation{Line: p.pos.Of(field), Verdict: in.Verdict, By: in.By, Why: in.Why}
	var err error
	if out.From, err = explain.ParseEnd(in.From); err != nil {
		p.fail(p.pos.Of(field+".from"), "%s.from: %v", field, err)
	}
	if out.To, err = explain.ParseTarget(in.To); err != nil {
		p.fail(p.pos.Of(field+".to"), "%s.to: %v", field, err)
	}
	if out.From.Kind == explain.KindService || out.To.Kind == explain.KindService {
		p.fail(out.Line, "%s: services are not known here; name the pods that they lead to", field)
	}
	switch in.Verdict {
	case explain.Allowed, explain.Denied, explain.Audited:
	default:
		p.fail(p.pos.Of(field+".verdict"), "%s.verdict: %q is none of allowed, denied, audited", field, in.Verdict)
	}
	p.file.Expect = append(p.file.Expect, out)
}
