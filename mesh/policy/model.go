// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// model is a policy in any dialect, understood: selectors are compiled, nothing is resolved yet.
type model struct {
	key      string
	rec      *recordv1.Policy
	audit    bool
	clusters *selector // in which clusters it has subjects; nil: all
	subjects podSelector
	dirs     [2]*direction // by Direction; nil: the policy does not speak about it
	problems []string      // each makes the policy closed
	warnings []string      // to be told, without effect
}

// direction holds the rules of one direction.
type direction struct {
	isolates bool
	isolate  uint32 // rule id, if isolates
	rules    []rule
}

// rule allows or denies connections with any of the peers on any of the ports.
type rule struct {
	id      uint32
	kind    RuleKind
	index   int
	anyPeer bool // else peers
	peers   []peer
	anyPort bool // of any protocol; else ports
	ports   []port
	text    string
}

// peer is who may be at the other end: pods, or addresses.
type peer struct {
	pods   *podSelector
	cidr   netip.Prefix // if pods is nil
	except []netip.Prefix
}

// podSelector chooses pods by cluster, namespace and labels.
type podSelector struct {
	local      bool      // only the local cluster, else clusters
	clusters   *selector // nil: all
	namespace  string    // only this namespace, else namespaces
	namespaces *selector // nil: all
	pods       *selector // nil: all
}

// port is a range of ports of a protocol, or a named one.
type port struct {
	proto    uint8
	from, to uint16 // 0, 0: all
	name     string // with the protocol, as in Input.NamedPorts
}

func (m *model) problem(text string) { m.problems = append(m.problems, text) }
func (m *model) warn(text string)    { m.warnings = append(m.warnings, text) }

// close makes a policy that was not understood safe: it isolates whatever it speaks about and allows nothing.
func (m *model) close() {
	for _, d := range m.dirs {
		if d == nil {
			continue
		}
		d.isolates = true
		kept := d.rules[:0]
		for _, r := range d.rules {
			if r.kind == RuleDeny {
				kept = append(kept, r)
			}
		}
		d.rules = kept
	}
}
