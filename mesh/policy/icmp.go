// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
)

// icmpPorts reads messages as ports of the two protocols: a name means those of both families that have it.
func icmpPorts(in *v1alpha1.MeshPolicyICMP) ([]port, error) {
	families := []uint8{icmp.V4, icmp.V6}
	switch in.Family {
	case "":
	case v1alpha1.ICMPFamilyIPv4:
		families = families[:1]
	case v1alpha1.ICMPFamilyIPv6:
		families = families[1:]
	default:
		return nil, fmt.Errorf(".family: %q is neither IPv4 nor IPv6", in.Family)
	}
	var out []port
	switch {
	case in.Type == nil:
		for _, proto := range families {
			out = append(out, port{proto: proto})
		}
		return out, nil
	case in.Type.Type == intstr.Int && in.Family == "":
		return nil, fmt.Errorf(": type %d needs the family: types have other numbers in the other one", in.Type.IntVal)
	case in.Type.Type == intstr.Int && (in.Type.IntVal < 0 || in.Type.IntVal > 255):
		return nil, fmt.Errorf(".type: %d is not between 0 and 255", in.Type.IntVal)
	}
	for _, proto := range families {
		typ, is := uint8(in.Type.IntVal), true
		if in.Type.Type == intstr.String {
			typ, is = icmp.Named(proto, in.Type.StrVal)
		}
		if !is {
			continue
		}
		if icmp.IsError(proto, typ) {
			return nil, fmt.Errorf(".type: %s is an error message: these pass with the connection that they are about, and never without, so no rule can name them", icmp.Name(proto, typ))
		}
		out = append(out, port{proto: proto, from: icmp.Port(typ), to: icmp.Port(typ)})
	}
	if len(out) == 0 {
		var known []string
		for _, proto := range families {
			known = append(known, protocolName(proto)+" has "+strings.Join(icmp.Names(proto), ", "))
		}
		return nil, fmt.Errorf(".type: %q is no name of a type; %s; others go by number", in.Type.StrVal, strings.Join(known, "; "))
	}
	return out, nil
}
