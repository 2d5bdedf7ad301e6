// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// What the oracle knows of policies of cilium.io, from Cilium's documentation: they are written down here as what they mean, and
// turned into objects by spec. Nothing of the decoder is used.

type ciliumMeans struct {
	subject  []ciliumRequirement
	sections [2]ciliumSection // by direction
}

type ciliumSection struct {
	allow, deny []ciliumSays
	defaultDeny *bool
}

// ciliumRequirement is on one label, by the name that Cilium gives it; prefix is what is written before that.
type ciliumRequirement struct {
	prefix, label string
	op            metav1.LabelSelectorOperator
	values        []string
}

// ciliumSays is one rule. A list of peers that is not nil is given, though it may be empty.
type ciliumSays struct {
	endpoints  *[][]ciliumRequirement
	entities   *[]string
	cidrs      *[]string
	cidrSets   *[]ciliumBlock
	services   *[]ServiceName // in egress
	unenforced string         // a field about peers that isn't enforced

	ports []ciliumOpens
	icmps bool
	seven bool // the first element of toPorts asks for something in layer 7
}

type ciliumBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

type ciliumOpens struct {
	Port     string `json:"port"`
	EndPort  int32  `json:"endPort,omitempty"`
	Protocol string `json:"protocol,omitempty"`
}

// ciliumOf are a pod's labels as Cilium has them.
func ciliumOf(p *oraclePod) map[string]string {
	out := map[string]string{
		"io.kubernetes.pod.namespace": p.namespace, "io.cilium.k8s.policy.cluster": p.cluster, "io.cilium.k8s.policy.serviceaccount": p.account,
		"io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": p.namespace,
	}
	for k, v := range p.labels {
		out[k] = v
	}
	for k, v := range p.namespaceLabels {
		out["io.cilium.k8s.namespace.labels."+k] = v
	}
	return out
}

func (r ciliumRequirement) meets(l map[string]string) bool {
	v, has := l[r.label]
	switch r.op {
	case metav1.LabelSelectorOpIn:
		return has && slices.Contains(r.values, v)
	case metav1.LabelSelectorOpNotIn:
		return !has || !slices.Contains(r.values, v)
	case metav1.LabelSelectorOpExists:
		return has
	}
	return !has
}

// ciliumPod says whether requirements mean a pod.
func (o *oracle) ciliumPod(list []ciliumRequirement, p *oraclePod) truth {
	out, l := yes, ciliumOf(p)
	for _, r := range list {
		switch {
		case slices.Contains(leftOut, r.label) && !o.omniscient:
			out = min(out, unknown)
		case !r.meets(l):
			return no
		}
	}
	return out
}

func (o *oracle) askCilium(p oraclePolicy, c connection) (out says) {
	for _, spec := range p.cilium {
		if p.namespace != "" && c.subject.namespace != p.namespace {
			continue
		}
		selected := o.ciliumPod(spec.subject, c.subject)
		if selected == no {
			continue
		}
		section := spec.sections[c.dir]
		isolates := len(section.allow)+len(section.deny) > 0
		if section.defaultDeny != nil {
			isolates = *section.defaultDeny
		}
		out.isolates = out.isolates || isolates
		out.isolatesOwn = out.isolatesOwn || isolates
		for _, r := range section.allow {
			out.allows = out.allows || selected == yes && o.ciliumRule(p.namespace, r, c, false) == yes
		}
		for _, r := range section.deny {
			out.denies = out.denies || o.ciliumRule(p.namespace, r, c, true) != no
		}
	}
	return out
}

func (o *oracle) ciliumRule(namespace string, r ciliumSays, c connection, deny bool) truth {
	peer, onPort := o.ciliumPeers(namespace, r, c), o.ciliumPorts(namespace, r, c, deny)
	return min(peer, truthOf(onPort))
}

// ciliumPeers says whether a rule means the other side.
func (o *oracle) ciliumPeers(namespace string, r ciliumSays, c connection) truth {
	who := c.peer
	out := no
	could := func(is bool) { // somebody unknown could be anybody
		if who.unknown {
			out = max(out, unknown)
		} else {
			out = max(out, truthOf(is))
		}
	}
	block := func(cidr string, except []string) {
		could(who.entity == v1alpha1.PolicyEntityWorld && inBlock(cidr, except, who))
	}
	switch {
	case r.unenforced != "":
		return unknown
	case r.endpoints != nil:
		for _, s := range *r.endpoints {
			if who.unknown {
				out = unknown
			} else if who.pod != nil {
				out = max(out, o.ciliumEndpoint(namespace, s, who.pod))
			}
		}
	case r.entities != nil:
		for _, e := range *r.entities {
			node := who.entity == v1alpha1.PolicyEntityNodes
			switch e {
			case "all":
				return yes
			case "world":
				could(who.entity == v1alpha1.PolicyEntityWorld)
			case "cluster":
				could(node || who.pod != nil && who.pod.cluster == o.local)
			case "host":
				could(who.own)
			case "remote-node":
				could(node && !who.own)
			case "kube-apiserver":
				if who.pod == nil {
					out = max(out, unknown)
				}
			case "init":
				could(false)
			}
		}
	case r.cidrs != nil:
		for _, cidr := range *r.cidrs {
			if !strings.Contains(cidr, "/") {
				cidr = netip.PrefixFrom(netip.MustParseAddr(cidr), netip.MustParseAddr(cidr).BitLen()).String()
			}
			block(cidr, nil)
		}
	case r.cidrSets != nil:
		for _, b := range *r.cidrSets {
			block(b.CIDR, b.Except)
		}
	case r.services != nil:
		for _, name := range *r.services {
			_, is := o.behind(name, who)
			if who.unknown {
				is = unknown
			}
			out = max(out, is)
		}
	default:
		return truthOf(len(r.ports) > 0 || r.icmps)
	}
	return out
}

func (o *oracle) ciliumEndpoint(namespace string, list []ciliumRequirement, p *oraclePod) truth {
	asks := func(what string) bool {
		return slices.ContainsFunc(list, func(r ciliumRequirement) bool { return strings.HasPrefix(r.label, what) })
	}
	switch {
	case p.cluster != o.local && !asks("io.cilium.k8s.policy.cluster"):
		return no
	case namespace != "" && p.namespace != namespace && !asks("io.kubernetes.pod.namespace") && !asks("io.cilium.k8s.namespace.labels."):
		return no
	}
	return o.ciliumPod(list, p)
}

func (o *oracle) ciliumPorts(namespace string, r ciliumSays, c connection, deny bool) bool {
	if r.icmps {
		return c.proto == 1 && c.port == 8+1
	}
	if r.seven && !deny {
		return false
	}
	for _, p := range r.ports {
		name := strings.ToUpper(p.Protocol)
		if ports := name == "" || name == "ANY"; c.proto == 1 || c.proto == 58 || !ports && !isNamed(name, c.proto) {
			continue
		}
		number, err := strconv.Atoi(p.Port)
		switch {
		case err != nil:
			if o.ciliumListens(namespace, r, c, deny, p.Port) {
				return true
			}
		case number == 0, int(c.port) == number, p.EndPort > 0 && int(c.port) >= number && int(c.port) <= int(p.EndPort):
			return true
		}
	}
	return len(r.ports) == 0
}

// ciliumListens says whether the listener calls the port so; of somebody unknown, whether anybody does who may be meant.
func (o *oracle) ciliumListens(namespace string, r ciliumSays, c connection, deny bool, name string) bool {
	name += "/" + map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}[c.proto]
	if c.dir == Egress && c.peer.unknown {
		return deny && slices.ContainsFunc(o.all, func(pod *oraclePod) bool {
			is := c
			is.peer = oraclePeer{pod: pod} // by an address nobody is meant as a pod
			return slices.Contains(pod.named[name], c.port) && o.ciliumPeers(namespace, r, is) != no
		})
	}
	if c.peer.addr = (netip.Addr{}); c.dir == Egress && o.ciliumPeers(namespace, r, c) == no {
		return false // meant by the address only
	}
	l := c.listener(true)
	return l != nil && slices.Contains(l.named[name], c.port)
}

// spec writes the object's fields.
func (m ciliumMeans) spec() map[string]any {
	out := map[string]any{"endpointSelector": ciliumSelector(m.subject)}
	for dir, s := range m.sections {
		name, side := Direction(dir).String(), "from"
		if Direction(dir) == Egress {
			side = "to"
		}
		for _, list := range []struct {
			name  string
			rules []ciliumSays
		}{{name, s.allow}, {name + "Deny", s.deny}} {
			var rules []any
			for _, r := range list.rules {
				rules = append(rules, r.spec(side))
			}
			if rules != nil {
				out[list.name] = rules
			}
		}
		if s.defaultDeny != nil {
			defaults, _ := out["enableDefaultDeny"].(map[string]any)
			if defaults == nil {
				defaults = map[string]any{}
			}
			defaults[name] = *s.defaultDeny
			out["enableDefaultDeny"] = defaults
		}
	}
	return out
}

func (r ciliumSays) spec(side string) map[string]any {
	out := map[string]any{}
	if r.endpoints != nil {
		list := []any{}
		for _, s := range *r.endpoints {
			list = append(list, ciliumSelector(s))
		}
		out[side+"Endpoints"] = list
	}
	if r.entities != nil {
		out[side+"Entities"] = *r.entities
	}
	if r.cidrs != nil {
		out[side+"CIDR"] = *r.cidrs
	}
	if r.cidrSets != nil {
		out[side+"CIDRSet"] = *r.cidrSets
	}
	if r.services != nil {
		list := []any{}
		for _, s := range *r.services {
			list = append(list, map[string]any{"k8sService": map[string]any{"serviceName": s.Name, "namespace": s.Namespace}})
		}
		out["toServices"] = list
	}
	if r.unenforced != "" {
		out[side+r.unenforced] = []any{map[string]any{}}
	}
	if r.icmps {
		out["icmps"] = []any{map[string]any{"fields": []any{map[string]any{"type": 8, "family": "IPv4"}}}}
	}
	var ports []any
	if len(r.ports) > 0 {
		ports = append(ports, map[string]any{"ports": r.ports})
		if r.seven {
			ports[0] = map[string]any{"ports": r.ports, "rules": map[string]any{"http": []any{map[string]any{"path": "/"}}}}
		}
		out["toPorts"] = ports
	}
	return out
}

func ciliumSelector(list []ciliumRequirement) metav1.LabelSelector {
	var out metav1.LabelSelector
	for _, r := range list {
		key := r.prefix + r.label
		if _, twice := out.MatchLabels[key]; r.op == metav1.LabelSelectorOpIn && len(r.values) == 1 && !twice {
			metav1.AddLabelToSelector(&out, key, r.values[0])
			continue
		}
		out.MatchExpressions = append(out.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: r.op, Values: r.values})
	}
	return out
}

// ciliumSubjects are the selectors of a policy's subjects, as text.
func ciliumSubjects(list []ciliumMeans) string {
	var out []string
	for _, m := range list {
		text, _ := json.Marshal(ciliumSelector(m.subject))
		out = append(out, string(text))
	}
	return strings.Join(out, " ")
}
