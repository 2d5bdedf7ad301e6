// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/icmp"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
)

// Format prints a key or value of a desired row; dumps, status output and stories show rows this way.
func Format(v any) string {
	switch v := v.(type) {
	case bpf.Remote:
		return formatRemote(v)
	case bpf.Iface:
		return formatIface(v)
	case bpf.Local:
		return fmt.Sprintf("ifindex=%d pod-mac=%s", v.Ifindex, net.HardwareAddr(v.PodMAC[:]))
	case bpf.SubjectKey:
		return fmt.Sprintf("%s %s", v.Dir, formatIdentity(v.Identity))
	case bpf.Subject:
		return formatSubject(v)
	case bpf.IdentityClass:
		return fmt.Sprintf("class=%d", v.Class)
	case bpf.ClassSets:
		return formatSets(v)
	case bpf.GroupKey:
		return fmt.Sprintf("%d chunk=%d", v.Group, v.Chunk)
	case bpf.GroupChunk:
		return formatChunk(v)
	case bpf.Service:
		return formatService(v)
	case bpf.SlotKey:
		return fmt.Sprintf("service=%d slot=%d", v.Service, v.Slot)
	case bpf.Backend:
		return fmt.Sprintf("%s id=%d", netip.AddrPortFrom(BackendAddr(v), v.Port), v.ID)
	case bpf.Peer:
		return formatFlags(v.Flags, "not-ready", "ready")
	case Pod:
		return fmt.Sprintf("%s identity=%d", join(v.Addresses), v.Identity)
	case *topology.Peer:
		return fmt.Sprintf("%s/%s key=%s endpoint=%s allowed=%s", v.Cluster, v.Node, short(v.PublicKey.String()), v.Endpoint, join(v.AllowedIPs))
	case Hook:
		return fmt.Sprintf("%s ifindex=%d", v.Role, v.Ifindex)
	case Attachment:
		return v.Name
	case Device:
		return fmt.Sprintf("ifindex=%d mtu=%d", v.Ifindex, v.MTU)
	case Setting:
		return fmt.Sprintf("encryption=%t strict=%t", v.Encryption, v.Strict)
	case Route:
		return formatRoute(v)
	case Rule:
		return formatRule(v)
	}
	return fmt.Sprint(v)
}

func formatIdentity(id uint32) string {
	if id == 0 {
		return "any"
	}
	return fmt.Sprint(id)
}

func formatRemote(r bpf.Remote) string {
	s := fmt.Sprintf("identity=%d", r.Identity)
	if r.Peer != 0 {
		s += fmt.Sprintf(" peer=%d", r.Peer)
	}
	if f := formatFlags(uint32(r.Flags), "", "tunnel", "require-tunnel", "host", "node", "service", "unvouched"); f != "" {
		s += " " + f
	}
	return s
}

func formatIface(v bpf.Iface) string {
	s := fmt.Sprintf("identity=%d", v.Identity)
	if v.Flags&bpf.IfaceIP4 != 0 {
		s += " " + netip.AddrFrom4(v.IP4).String()
	}
	if v.Flags&bpf.IfaceIP6 != 0 {
		s += " " + netip.AddrFrom16(v.IP6).String()
	}
	return s + " pod-mac=" + net.HardwareAddr(v.PodMAC[:]).String()
}

func formatSubject(v bpf.Subject) string {
	s := formatFlags(v.Flags, "not-isolated", "isolated", "audit", "blocks")
	if v.Lines > 0 {
		s += fmt.Sprintf(" group=%d lines=%d", v.Group, v.Lines)
	}
	if v.DefaultRule != 0 {
		s += fmt.Sprintf(" default-rule=%d", v.DefaultRule)
	}
	return s
}

// formatSets lists the bits that are set.
func formatSets(c bpf.ClassSets) string {
	var set []string
	for word, b := range c.Sets {
		for ; b != 0; b &= b - 1 {
			set = append(set, fmt.Sprint(word*64+bits.TrailingZeros64(b)))
		}
	}
	return "sets=" + strings.Join(set, ",")
}

func formatChunk(c bpf.GroupChunk) string {
	var lines []string
	for _, l := range c.Line {
		if l != (bpf.PolicyLine{}) {
			lines = append(lines, FormatLine(l))
		}
	}
	return strings.Join(lines, "; ")
}

// FormatLine prints a line of a policy.
func FormatLine(l bpf.PolicyLine) string {
	peer, port := "anybody", "any"
	if l.Set != 0 {
		peer = fmt.Sprintf("set=%d", l.Set)
	}
	switch {
	case icmp.Is(l.Proto) && l.PortFrom != 0:
		port = icmp.PortName(l.Proto, l.PortFrom)
	case l.PortFrom != l.PortTo:
		port = fmt.Sprintf("%d-%d", l.PortFrom, l.PortTo)
	case l.PortFrom != 0:
		port = fmt.Sprint(l.PortFrom)
	}
	return fmt.Sprintf("%s %s %s/%s rule=%d", l.Verdict, peer, port, ProtocolName(l.Proto), l.RuleID)
}

func formatService(v bpf.Service) string {
	s := fmt.Sprintf("service=%d backends=%d", v.ID, v.Backends)
	if v.Flags&bpf.ServiceAffinity != 0 {
		s += fmt.Sprintf(" affinity=%ds", v.AffinitySeconds)
	}
	if v.Flags&bpf.ServicePolicyOnly != 0 {
		s += " policy-only"
	}
	return s
}

func formatRoute(r Route) string {
	s := "via " + r.Via
	if r.Gateway.IsValid() {
		s += " " + r.Gateway.String()
	}
	if r.Source.IsValid() {
		s += " src " + r.Source.String()
	}
	return s
}

func formatRule(r Rule) string {
	s := r.Kind + "/" + r.Name
	if r.Policy == "" {
		s = "built-in"
	}
	if r.Namespace != "" {
		s = r.Namespace + "/" + s
	}
	if r.Description != "" {
		s += " (" + r.Description + ")"
	}
	if r.Path != "" || r.Revision != "" {
		s += fmt.Sprintf(" %s @ %s", r.Path, r.Revision)
	}
	return s
}

// formatFlags names the bits that are set, lowest first.
func formatFlags(flags uint32, none string, names ...string) string {
	var set []string
	for i, name := range names {
		if flags&(1<<i) != 0 {
			set = append(set, name)
		}
	}
	if len(set) == 0 {
		return none
	}
	return strings.Join(set, ",")
}

// join writes a list with commas between.
func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ",")
}

func short(key string) string {
	if len(key) > 8 {
		return key[:8] + "…"
	}
	return key
}

// BackendAddr is the address of a backend whatever its family.
func BackendAddr(b bpf.Backend) netip.Addr {
	if b.Family == familyIPv4 {
		return netip.AddrFrom4([4]byte(b.Addr[:4]))
	}
	return netip.AddrFrom16(b.Addr)
}

// Address families as the kernel numbers them.
const (
	familyIPv4 = 2
	familyIPv6 = 10
)

// MakeBackend is the inverse of BackendAddr.
func MakeBackend(id uint32, to netip.AddrPort) bpf.Backend {
	b := bpf.Backend{ID: id, Port: to.Port(), Family: familyIPv6}
	if a := to.Addr().Unmap(); a.Is4() {
		b.Family = familyIPv4
		a4 := a.As4()
		copy(b.Addr[:], a4[:])
	} else {
		b.Addr = a.As16()
	}
	return b
}
