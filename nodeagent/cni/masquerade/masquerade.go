// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package masquerade lets the pods of our own CNI talk to the world: what
// leaves the node for an address that knows nothing of pods gets the node's
// address as its source. Pods of other CNIs are left to those.
//
// It is one nftables table, replaced as a whole in one transaction.
package masquerade

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const (
	tableName = "fairlead-masquerade"
	chainName = "postrouting"
)

// Config says whose packets are translated and which never are.
type Config struct {
	// PodCIDRs are the node's own: only packets from there are translated.
	PodCIDRs []netip.Prefix
	// Except are destinations that know pods: the pod CIDRs of the mesh.
	// The node's own PodCIDRs always belong to them.
	Except []netip.Prefix
	// Tunnel is the device that is never translated on.
	Tunnel string
}

// Apply puts the table into place, whatever was there before.
func Apply(cfg Config) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	// Adding before deleting makes the deletion succeed where there was none.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Name: chainName, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	if cfg.Tunnel != "" {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(leavesOver(cfg.Tunnel), &expr.Verdict{Kind: expr.VerdictReturn})})
	}
	except := slices.Concat(cfg.PodCIDRs, cfg.Except)
	for _, p := range except {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(matches(p, false), &expr.Verdict{Kind: expr.VerdictReturn})})
	}
	for _, p := range cfg.PodCIDRs {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(matches(p, true), &expr.Counter{}, &expr.Masq{})})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("setting the nftables table %s: %w", tableName, err)
	}
	return nil
}

// Remove takes the table away; an absent one is no error.
func Remove() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	if err := conn.Flush(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the nftables table %s: %w", tableName, err)
	}
	return nil
}

// Held reports whether the rules of a configuration are there. Others remove them as well: "nft flush ruleset" does, and so
// do reloads of nftables.service.
func Held(cfg Config) (bool, error) {
	conn, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("opening nftables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	rules, err := conn.GetRules(table, &nftables.Chain{Name: chainName, Table: table})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading the nftables table %s: %w", tableName, err)
	}
	want := 2*len(cfg.PodCIDRs) + len(cfg.Except)
	if cfg.Tunnel != "" {
		want++
	}
	return len(rules) == want, nil
}

func leavesOver(device string) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, device)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name},
	}
}

// matches an IPv4 or IPv6 packet by its source or destination.
func matches(p netip.Prefix, source bool) []expr.Any {
	proto, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if source {
		offset = 12
	}
	if p.Addr().Is6() {
		proto, offset = unix.NFPROTO_IPV6, 24
		if source {
			offset = 8
		}
	}
	size := p.Addr().BitLen() / 8
	out := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: mask(p), Xor: make([]byte, size)},
	}
	return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()})
}

func mask(p netip.Prefix) []byte {
	out := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}
