// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/mesh/icmp"
)

// Kind of an end of a connection.
type Kind string

// Kinds of ends.
const (
	KindPod     Kind = "pod"
	KindService Kind = "service"
	KindNode    Kind = "node"
	KindAddress Kind = "address"
)

// End is one end of a connection, as people name it.
type End struct {
	Kind                     Kind
	Cluster, Namespace, Name string // the cluster is empty if it was not named
	Addr                     netip.Addr
}

// Target is where a connection goes to.
type Target struct {
	End
	Proto uint8 // 0: not given; protoICMP: of whichever family the addresses are
	Port  uint16
	ICMP  string // a type, by name or number
}

// Protocol numbers.
const (
	protoICMP   = icmp.V4
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = icmp.V6
	protoSCTP   = 132
)

const forms = "give [cluster/]namespace/pod, svc/[cluster/]namespace/name, node/[cluster/]name or an address"

// ParseEnd reads FROM.
func ParseEnd(text string) (End, error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			if a, err := netip.ParseAddr(inner); err == nil && a.Is6() {
				return address(text, a)
			}
		}
		return End{}, fmt.Errorf("%q is not an IPv6 address in brackets", text)
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return address(text, a)
	}
	parts := strings.Split(text, "/")
	kind := KindPod
	switch parts[0] {
	case "svc", "service":
		kind, parts = KindService, parts[1:]
	case "node":
		kind, parts = KindNode, parts[1:]
	}
	e := End{Kind: kind}
	want := 2 // namespace and name
	if kind == KindNode {
		want = 1
	}
	if len(parts) == want+1 {
		e.Cluster, parts = parts[0], parts[1:]
		if len(validation.IsDNS1123Label(e.Cluster)) > 0 {
			return End{}, fmt.Errorf("%q: %q can't be the name of a cluster; %s", text, e.Cluster, forms)
		}
	}
	if len(parts) != want {
		return End{}, fmt.Errorf("%q names no end of a connection; %s", text, forms)
	}
	e.Name = parts[len(parts)-1]
	if len(validation.IsDNS1123Subdomain(e.Name)) > 0 {
		return End{}, fmt.Errorf("%q: %q can't be the name of a %s; %s", text, e.Name, kind, forms)
	}
	if kind != KindNode {
		if e.Namespace = parts[0]; len(validation.IsDNS1123Label(e.Namespace)) > 0 {
			return End{}, fmt.Errorf("%q: %q can't be the name of a namespace; %s", text, e.Namespace, forms)
		}
	}
	return e, nil
}

func address(text string, a netip.Addr) (End, error) {
	if a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		return End{}, fmt.Errorf("%q is no address that one connection leads to", text)
	}
	return End{Kind: KindAddress, Addr: a.Unmap()}, nil
}

// ping is the type of TO:icmp.
const ping = "EchoRequest"

// ParseTarget reads TO[:PORT[/PROTOCOL]], TO:icmp or TO:TYPE/ICMP.
func ParseTarget(text string) (Target, error) {
	name, port, has := text, "", false
	if end := strings.LastIndex(text, "]"); strings.HasPrefix(text, "[") && end > 0 {
		name = text[:end+1]
		if rest := text[end+1:]; rest != "" {
			if port, has = strings.CutPrefix(rest, ":"); !has {
				return Target{}, fmt.Errorf("%q: what follows an address in brackets is :PORT", text)
			}
		}
	} else if _, err := netip.ParseAddr(text); err != nil {
		name, port, has = strings.Cut(text, ":")
	}
	e, err := ParseEnd(name)
	if err != nil {
		return Target{}, err
	}
	t := Target{End: e}
	if !has {
		return t, nil
	}
	if strings.EqualFold(port, "icmp") {
		t.Proto, t.ICMP = protoICMP, ping
		return t, nil
	}
	number, proto, named := strings.Cut(port, "/")
	if strings.EqualFold(proto, "icmp") {
		t.Proto, t.ICMP = protoICMP, number
		return t, t.checkType(text)
	}
	t.Proto = protoTCP
	if named {
		switch strings.ToUpper(proto) {
		case "TCP":
		case "UDP":
			t.Proto = protoUDP
		case "SCTP":
			t.Proto = protoSCTP
		default:
			return Target{}, fmt.Errorf("%q: protocol %q is none of TCP, UDP, SCTP; for ICMP give :icmp or :TYPE/ICMP instead of a port", text, proto)
		}
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 {
		return Target{}, fmt.Errorf("%q: port %q is not a number between 1 and 65535", text, number)
	}
	t.Port = uint16(n)
	return t, nil
}

// checkType says whether a type is known in any family, and is no error.
func (t Target) checkType(text string) error {
	var why error
	for _, proto := range []uint8{icmp.V4, icmp.V6} {
		typ, err := icmp.Parse(proto, t.ICMP)
		if err == nil && icmp.IsError(proto, typ) {
			err = fmt.Errorf("%s is an error message, which passes with the connection that it is about, and never without", icmp.Name(proto, typ))
		}
		if err == nil {
			return nil
		}
		if why == nil {
			why = err
		}
	}
	return fmt.Errorf("%q: %w", text, why)
}

// String writes the end as ParseEnd reads it.
func (e End) String() string {
	cluster := e.Cluster
	if cluster != "" {
		cluster += "/"
	}
	switch e.Kind {
	case KindService:
		return "svc/" + cluster + e.Namespace + "/" + e.Name
	case KindNode:
		return "node/" + cluster + e.Name
	case KindAddress:
		return e.Addr.String()
	case KindPod:
	}
	return cluster + e.Namespace + "/" + e.Name
}

// String writes the target as ParseTarget reads it.
func (t Target) String() string {
	name := t.End.String()
	switch {
	case t.Proto == 0:
		return name
	case t.Kind == KindAddress && t.Addr.Is6():
		name = "[" + name + "]"
	}
	switch {
	case t.ICMP == ping:
		return name + ":icmp"
	case t.ICMP != "":
		return name + ":" + t.ICMP + "/ICMP"
	}
	return fmt.Sprintf("%s:%d/%s", name, t.Port, protocolName(t.Proto))
}

func protocolName(p uint8) string {
	switch p {
	case protoTCP:
		return "TCP"
	case protoUDP:
		return "UDP"
	case protoSCTP:
		return "SCTP"
	case protoICMP:
		return "ICMP"
	case protoICMPv6:
		return "ICMPv6"
	}
	return fmt.Sprintf("protocol %d", p)
}
