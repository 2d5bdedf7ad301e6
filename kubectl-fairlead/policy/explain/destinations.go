// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// place is where a connection ends, on which port.
type place struct {
	party
	proto uint8
	port  uint16
	icmp  string // a type, whose number may depend on the family
}

// destinations of TO, as they are for a source: a service leads elsewhere in each cluster.
func (e *explainer) destinations(from party, to Target) ([]place, error) {
	viewer, _ := from.onNode()
	if to.Kind == KindService {
		c, err := e.viewerOf(viewer, to.End)
		if err != nil {
			return nil, err
		}
		return e.leads(c, to, viewer == "")
	}
	if to.Kind == KindAddress && viewer != "" {
		if def := e.serviceAt(viewer, to); def != nil {
			named := to
			named.Kind, named.Cluster, named.Namespace, named.Name = KindService, viewer, def.Service.Namespace, def.Service.Name
			e.note(fmt.Sprintf("%s is an address of service %s/%s: judged is what that leads to", to.Addr, named.Namespace, named.Name))
			return e.leads(viewer, named, false)
		}
	}
	p, err := e.find(to.End)
	if err != nil {
		return nil, err
	}
	if to.Proto != 0 {
		return []place{{p, to.Proto, to.Port, to.ICMP}}, nil
	}
	var out []place
	if p.isSubject() {
		for _, port := range p.pod.Ports {
			out = append(out, place{party: p, proto: uint8(port.Proto), port: port.Number})
		}
	}
	if len(out) == 0 {
		return nil, errNoPort
	}
	return out, nil
}

// viewerOf is the cluster whose definition of a service counts: the one that is named, or where the connection begins.
func (e *explainer) viewerOf(viewer string, svc End) (string, error) {
	if svc.Cluster == "" && viewer != "" {
		return viewer, nil
	}
	c, err := e.home(svc)
	if err != nil {
		return "", err
	}
	if viewer != "" && viewer != c.Name {
		return "", fmt.Errorf("pods of cluster %s reach services by that cluster's own definition; leave the cluster's name out", viewer)
	}
	return c.Name, nil
}

// home is the cluster that a service is defined in.
func (e *explainer) home(svc End) (*world.Cluster, error) {
	var found []string
	for _, name := range e.mesh.Names() {
		if (svc.Cluster == "" || svc.Cluster == name) && definition(e.mesh.Clusters[name], svc) != nil {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return nil, e.notFound(svc)
	case 1:
		return e.mesh.Clusters[found[0]], nil
	}
	return nil, fmt.Errorf("clusters %s define it; put the cluster's name before the namespace: svc/%s/…", strings.Join(found, " and "), found[0])
}

func definition(c *world.Cluster, svc End) *service.Definition {
	for i := range c.Services {
		if s := c.Services[i].Service; s.Namespace == svc.Namespace && s.Name == svc.Name {
			return &c.Services[i]
		}
	}
	return nil
}

func (e *explainer) serviceAt(cluster string, to Target) *service.Definition {
	c := e.mesh.Clusters[cluster]
	for i := range c.Services {
		if s := c.Services[i].Service; slices.Contains(s.ClusterIPs, to.Addr) || slices.Contains(s.External, to.Addr) {
			return &c.Services[i]
		}
	}
	return nil
}

// leads lists what a service leads to in a cluster. From outside it leads to the cluster's own backends alone.
func (e *explainer) leads(cluster string, to Target, outside bool) ([]place, error) {
	c := e.mesh.Clusters[cluster]
	own := definition(c, to.End)
	if own == nil {
		return nil, fmt.Errorf("cluster %s has no service %s/%s, so the name leads nowhere there: %w", cluster, to.Namespace, to.Name, e.notFound(End{Kind: KindService, Cluster: cluster, Namespace: to.Namespace, Name: to.Name}))
	}
	if own.Service.Headless {
		return nil, fmt.Errorf("service %s/%s is headless: its name resolves to pods' addresses; name a pod", to.Namespace, to.Name)
	}
	var defs []service.Definition
	for _, name := range e.mesh.Names() {
		if d := definition(e.mesh.Clusters[name], to.End); d != nil && (name == cluster || !outside) {
			defs = append(defs, *d)
		}
	}
	if own.Service.Global && !outside {
		for name := range c.Others {
			if e.mesh.Clusters[name] == nil {
				e.missing = append(e.missing, fmt.Sprintf("service %s/%s is global and cluster %s was not read, which may have backends; add its --context", to.Namespace, to.Name, name))
			}
		}
	}
	if to.ICMP != "" {
		return nil, fmt.Errorf("service %s/%s has ports, and none of ICMP: nobody answers a ping to its address; name a pod", to.Namespace, to.Name)
	}
	var out []place
	ports := 0
	for _, f := range service.Resolve(cluster, defs).Frontends {
		if f.Outside && f.Addr != to.Addr || to.Proto != 0 && (f.Proto != to.Proto || f.Port != to.Port) {
			continue
		}
		ports++
		for _, b := range f.Backends {
			p := party{addr: b.Addr}
			p.pod, p.node = e.mesh.Holder(b.Addr)
			if next := (place{party: p, proto: f.Proto, port: b.Port}); !slices.Contains(out, next) {
				out = append(out, next)
			}
		}
	}
	switch {
	case to.Proto != 0 && ports == 0:
		return nil, fmt.Errorf("service %s/%s of cluster %s has no port %d/%s", to.Namespace, to.Name, cluster, to.Port, protocolName(to.Proto))
	case len(out) == 0:
		return nil, fmt.Errorf("service %s/%s has no ready backend in %s, so nothing can be judged", to.Namespace, to.Name, strings.Join(e.mesh.Names(), ", "))
	}
	return out, nil
}
