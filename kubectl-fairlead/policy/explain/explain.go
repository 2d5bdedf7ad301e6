// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
)

type explainer struct {
	mesh    *world.Mesh
	missing []string
	notes   []string
}

// Explain judges the connections from one end to the other. An error is about what was asked; what could not be read is in
// the report.
func Explain(m *world.Mesh, from End, to Target) (Report, error) {
	e := &explainer{mesh: m}
	r := Report{From: from.String(), To: to.String(), Connections: []Connection{}}
	sources, err := e.sources(from)
	if err != nil {
		return r, fmt.Errorf("FROM %s: %w", from, err)
	}
	var lacking []error // families without the type that was asked for
	for _, source := range sources {
		places, err := e.destinations(source, to)
		if err != nil {
			return r, fmt.Errorf("TO %s: %w", to, err)
		}
		for _, p := range places {
			for _, pair := range families(source, p.party) {
				proto, port, err := p.on(pair[0], pair[1])
				if err != nil {
					lacking = append(lacking, err)
					continue
				}
				r.add(e.judge(pair[0], pair[1], proto, port))
			}
		}
	}
	if len(r.Connections) == 0 && len(lacking) > 0 {
		return r, fmt.Errorf("TO %s: %w", to, lacking[0])
	}
	for _, err := range lacking {
		e.note("not judged: " + err.Error())
	}
	for _, c := range r.Connections {
		e.missing = append(append(e.missing, c.Egress.Missing...), c.Ingress.Missing...)
		if c.Egress.Exempt == ExemptNotAPod && c.Ingress.Exempt == ExemptNotAPod {
			e.note("neither end is a pod: no policy of Fairlead judges it")
		}
		if c.To.Kind == KindNode && c.From.Cluster != c.To.Cluster && c.From.Cluster != "" {
			e.note("a node's own ports are closed to what comes out of the tunnel, whatever policies say")
		}
		if c.From.Kind != KindPod && c.To.Kind == KindPod {
			e.note("a client that a node passes on under its own address is judged as itself only where the node that translated it also has the pod")
		}
	}
	slices.Sort(e.missing)
	r.Missing, r.Notes = slices.Compact(e.missing), e.notes
	r.Verdict = sum(r.Connections)
	if len(r.Missing) > 0 && r.Verdict != Denied {
		r.Verdict = Unknown
	}
	return r, nil
}

func (e *explainer) note(text string) {
	if !slices.Contains(e.notes, text) {
		e.notes = append(e.notes, text)
	}
}

// add keeps one of connections that differ in the destination alone.
func (r *Report) add(c Connection) {
	for i := range r.Connections {
		if was := &r.Connections[i]; alike(*was, c) {
			if name := c.To.String(); name != was.To.String() && !slices.Contains(was.Alike, name) {
				was.Alike = append(was.Alike, name)
			}
			return
		}
	}
	r.Connections = append(r.Connections, c)
}

func alike(a, b Connection) bool {
	strip := func(c Connection) string {
		c.Alike, c.To, c.Egress.PeerSeenAs, c.Ingress.PeerSeenAs = nil, Party{}, "", ""
		c.From.Address, c.Ingress.Enforced = "", nil
		text, err := json.Marshal(c)
		if err != nil {
			return ""
		}
		return string(text)
	}
	return a.To.Cluster == b.To.Cluster && a.To.Kind == b.To.Kind && strip(a) == strip(b)
}

// String names the party.
func (p Party) String() string {
	switch {
	case p.Name == "":
		return p.Address
	case p.Kind == KindNode:
		return "node " + p.Cluster + "/" + p.Name
	}
	return p.Cluster + "/" + p.Name
}

// families pairs the addresses of both ends: a connection has addresses of one family, and CIDRs may tell them apart.
func families(from, to party) [][2]party {
	a, b := from.addresses(), to.addresses()
	if len(a) == 0 || len(b) == 0 {
		return [][2]party{{from, to}}
	}
	var out [][2]party
	for _, v4 := range []bool{true, false} {
		is := func(x netip.Addr) bool { return x.Is4() == v4 }
		i, j := slices.IndexFunc(a, is), slices.IndexFunc(b, is)
		if i >= 0 && j >= 0 {
			from.addr, to.addr = a[i], b[j]
			out = append(out, [2]party{from, to})
		}
	}
	if len(out) == 0 { // no family in common: judged as if there were, and nobody can connect anyway
		from.addr, to.addr = a[0], b[0]
		out = append(out, [2]party{from, to})
	}
	return out
}

func (p party) addresses() []netip.Addr {
	switch {
	case p.addr.IsValid():
		return []netip.Addr{p.addr}
	case p.pod != nil:
		return p.pod.Addresses
	case p.node != nil:
		return p.node.Addresses
	}
	return nil
}

// sources finds FROM: one party, or all that a service leads to.
func (e *explainer) sources(from End) ([]party, error) {
	if from.Kind != KindService {
		p, err := e.find(from)
		if err != nil {
			return nil, err
		}
		return []party{p}, nil
	}
	c, err := e.home(from)
	if err != nil {
		return nil, err
	}
	leads, err := e.leads(c.Name, Target{End: from}, true)
	if err != nil {
		return nil, err
	}
	var out []party
	for _, l := range leads {
		if !slices.Contains(out, l.party) {
			out = append(out, l.party)
		}
	}
	return out, nil
}

// find an end that is no service.
func (e *explainer) find(at End) (party, error) {
	if at.Kind == KindAddress {
		pod, node := e.mesh.Holder(at.Addr)
		return party{pod: pod, node: node, addr: at.Addr}, nil
	}
	var found []party
	var where []string
	for _, name := range e.mesh.Names() {
		c := e.mesh.Clusters[name]
		if at.Cluster != "" && at.Cluster != name {
			continue
		}
		if at.Kind == KindNode {
			if n := c.Node(at.Name); n != nil {
				found, where = append(found, party{node: n}), append(where, name)
			}
		} else if p := c.Pod(at.Namespace, at.Name); p != nil {
			found, where = append(found, party{pod: p}), append(where, name)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return party{}, fmt.Errorf("clusters %s have a %s of this name; put the cluster's name before it: %s/…", strings.Join(where, " and "), at.Kind, where[0])
	}
	return party{}, e.notFound(at)
}

func (e *explainer) notFound(at End) error {
	if at.Cluster != "" && e.mesh.Clusters[at.Cluster] == nil {
		return fmt.Errorf("cluster %s is not known, only %s; add its --context, or describe it under clusters", at.Cluster, strings.Join(e.mesh.Names(), ", "))
	}
	for _, name := range e.mesh.Names() {
		if c := e.mesh.Clusters[name]; len(c.Missing) > 0 && (at.Cluster == "" || at.Cluster == name) {
			return fmt.Errorf("not found in what could be read of cluster %s, where this is missing: %s", name, strings.Join(c.Missing, "; "))
		}
	}
	next := "describe it under " + string(at.Kind) + "s"
	for _, c := range e.mesh.Clusters {
		if c.Live() {
			next = "see kubectl get, or add the --context of its cluster"
		}
	}
	return fmt.Errorf("no %s of this name in %s; %s", at.Kind, strings.Join(e.mesh.Names(), ", "), next)
}

var errNoPort = errors.New("no port is given, and none is known; add :PORT, :PORT/UDP or :icmp")
