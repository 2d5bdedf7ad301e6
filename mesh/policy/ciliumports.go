// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
)

// ciliumPorts is an element of toPorts.
type ciliumPorts struct {
	Ports          []ciliumPort    `json:"ports"`
	Rules          json.RawMessage `json:"rules"`
	TerminatingTLS json.RawMessage `json:"terminatingTLS"`
	OriginatingTLS json.RawMessage `json:"originatingTLS"`
	ServerNames    json.RawMessage `json:"serverNames"`
	Listener       json.RawMessage `json:"listener"`
}

type ciliumPort struct {
	Port     string `json:"port"`
	EndPort  int32  `json:"endPort"`
	Protocol string `json:"protocol"`
}

// ciliumICMP is an element of icmps.
type ciliumICMP struct {
	Fields []struct {
		Family string              `json:"family"`
		Type   *intstr.IntOrString `json:"type"`
	} `json:"fields"`
}

// ciliumPorts adds the ports of a rule; false: they are not understood.
func (m *Model) ciliumPorts(field string, r *rule, in *ciliumRule) bool {
	r.anyPort = len(in.ToPorts) == 0 && len(in.ICMPs) == 0
	if len(in.ToPorts) > 0 && len(in.ICMPs) > 0 {
		m.closeCilium(field, r, errors.New("toPorts and icmps can't be in one rule"))
		return false
	}
	for i := range in.ICMPs {
		m.ciliumICMP(fmt.Sprintf("%s.icmps[%d]", field, i), r, &in.ICMPs[i])
	}
	for i := range in.ToPorts {
		if !m.ciliumToPorts(fmt.Sprintf("%s.toPorts[%d]", field, i), r, &in.ToPorts[i]) {
			return false
		}
	}
	return true
}

// ciliumICMP adds types of ICMP. One that isn't understood, or that no rule can name, adds none to an allow, and all of the family
// to a deny.
func (m *Model) ciliumICMP(field string, r *rule, in *ciliumICMP) {
	for i, f := range in.Fields {
		family := cmp.Or(f.Family, v1alpha1.ICMPFamilyIPv4)
		ports, err := icmpPorts(&v1alpha1.MeshPolicyICMP{Family: family, Type: f.Type})
		if f.Type == nil {
			err = errors.New(": has no type")
		}
		if err != nil {
			m.warn(fmt.Sprintf("%s.fields[%d]%v; %s", field, i, err, closedEffect(r.kind)))
			ports = nil
			if r.kind == RuleDeny {
				ports = icmpOf(family)
			}
		}
		r.ports = append(r.ports, ports...)
	}
}

// icmpOf is all of a family's ICMP; of both for one that isn't known.
func icmpOf(family string) []port {
	switch family {
	case v1alpha1.ICMPFamilyIPv4:
		return []port{{proto: icmp.V4}}
	case v1alpha1.ICMPFamilyIPv6:
		return []port{{proto: icmp.V6}}
	}
	return []port{{proto: icmp.V4}, {proto: icmp.V6}}
}

// ciliumToPorts adds an element of toPorts; false: it isn't understood. One that has conditions on what is said on its ports
// allows nobody, and denies on these ports whatever is said.
func (m *Model) ciliumToPorts(field string, r *rule, in *ciliumPorts) bool {
	var ports []port
	for i := range in.Ports {
		out, err := in.Ports[i].read()
		if err != nil {
			m.closeCilium(fmt.Sprintf("%s.ports[%d]", field, i), r, err)
			return false
		}
		ports = append(ports, out...)
	}
	if len(in.Ports) == 0 {
		m.closeCilium(field, r, errors.New("has no ports"))
		return false
	}
	closed := false
	for _, more := range []struct {
		name string
		text json.RawMessage
	}{{"rules", in.Rules}, {"terminatingTLS", in.TerminatingTLS}, {"originatingTLS", in.OriginatingTLS}, {"serverNames", in.ServerNames}, {"listener", in.Listener}} {
		switch {
		case !given(more.text) || more.name == "rules" && string(more.text) == "{}" || more.name == "serverNames" && string(more.text) == "[]":
		case more.name == "rules" && anyName(more.text):
			m.warn(field + ".rules.dns: any name may be asked for; what is said on these ports is not looked at")
		default:
			m.closeCilium(field+"."+more.name, r, errNotEnforced)
			closed = true
		}
	}
	if !closed || r.kind == RuleDeny {
		r.ports = append(r.ports, ports...)
	}
	return true
}

// anyName says whether rules are about DNS, and allow all names.
func anyName(text json.RawMessage) bool {
	var rules map[string][]map[string]string
	if json.Unmarshal(text, &rules) != nil || len(rules) != 1 {
		return false
	}
	for _, r := range rules["dns"] {
		if len(r) == 1 && r["matchPattern"] == "*" {
			return true
		}
	}
	return false
}

// read gives the ports of an element of ports: of one protocol, or of each that has ports. Port 0 stands for all.
func (p *ciliumPort) read() ([]port, error) {
	protos := []uint8{protoTCP, protoUDP, protoSCTP}
	if name := strings.ToUpper(p.Protocol); name != "" && name != "ANY" {
		proto, err := parseProtocol(name)
		if err != nil {
			return nil, fmt.Errorf("protocol %q is none of TCP, UDP, SCTP and ANY", p.Protocol)
		}
		protos = []uint8{proto}
	}
	var out []port
	for _, proto := range protos {
		one, err := p.of(proto)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (p *ciliumPort) of(proto uint8) (port, error) {
	switch {
	case p.Port == "":
		return port{}, errors.New("port is missing")
	case p.Port == "0" && p.EndPort == 0:
		return port{proto: proto}, nil
	case strings.Trim(p.Port, "0123456789") != "": // endPort has no meaning then
		return port{proto: proto, name: strings.ToLower(p.Port) + "/" + protocolName(proto)}, nil
	case p.Port[0] == '0':
		return port{}, fmt.Errorf("port %q is neither a number from 1 to 65535 nor a name", p.Port)
	}
	from, err := strconv.ParseInt(p.Port, 10, 32)
	if err != nil {
		return port{}, fmt.Errorf("port %q is not between 1 and 65535", p.Port)
	}
	if p.EndPort == 0 {
		return numericPort(proto, from, nil)
	}
	return numericPort(proto, from, &p.EndPort)
}
