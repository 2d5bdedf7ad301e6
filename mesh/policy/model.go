// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Model is a policy in any dialect, understood: selectors are compiled, nothing is resolved yet. It is never changed after
// Parse and may be shared.
type Model struct {
	key      string // of its own; that of the policy is Key
	in       string // which of the policy's specs this is, if there may be several
	rec      *record.Policy
	nobody   bool // not even the subjects could be read
	audit    bool
	opens    bool // though it is audited, its allows count: its own mode doesn't say so
	tier     Tier
	priority int32     // in Admin and Baseline: lower ones are asked first
	clusters *selector // in which clusters it has subjects; nil: all
	subjects podSelector
	widened  bool          // subjects are all pods that may be meant: which ones are is not known
	dirs     [2]*direction // by Direction; nil: the policy says nothing about it
	problems []string      // each makes the policy closed
	warnings []string      // for the author: what the policy can't do as it says; what they are about is closed
	more     []*Model      // the policy's other specs, with subjects of their own
}

// Key names the policy within its cluster: kind/namespace/name, with - for no namespace.
func (m *Model) Key() string { return Key(m.rec) }

// another adds a model for one more spec of the same policy.
func (m *Model) another(in string) *Model {
	n := &Model{key: m.key + "\x00" + in, in: in, rec: m.rec}
	m.more = append(m.more, n)
	return n
}

// all are the models of a policy: one for each of its specs.
func (m *Model) all() []*Model {
	if len(m.more) == 0 {
		return []*Model{m}
	}
	return append([]*Model{m}, m.more...)
}

// Problems are what the policy's author should know, with the names of the fields.
func (m *Model) Problems() []Problem {
	var out []Problem
	for _, one := range m.all() {
		out = append(out, one.ownProblems()...)
	}
	return out
}

func (m *Model) ownProblems() []Problem {
	out := make([]Problem, 0, len(m.problems)+len(m.warnings))
	for _, text := range m.problems {
		out = append(out, Problem{PolicyKey: m.Key(), Message: text})
	}
	for _, text := range m.warnings {
		out = append(out, Problem{PolicyKey: m.Key(), Message: text, Warning: true})
	}
	return out
}

// Key names a policy as Model.Key does.
func Key(p *record.Policy) string {
	ns := p.Namespace
	if ns == "" {
		ns = "-"
	}
	return p.PolicyKind + "/" + ns + "/" + p.Name
}

// direction holds the rules of one direction.
type direction struct {
	isolates bool   // in Admin and Baseline: denies, as the policy's last rule
	ownNode  bool   // isolation, and denies that are about everybody, mean the subject's own node as well
	rules    []rule // in Admin and Baseline: the first that matches decides
}

// rule allows, denies or passes connections with any of the peers on any of the ports.
type rule struct {
	kind    RuleKind
	index   int
	name    string // that the author gave it
	anyPeer bool   // else peers
	peers   []peer
	outside bool // of peers, which are addresses then, those only that nobody of the mesh has
	anyPort bool // of any protocol; else ports
	ports   []port
	text    string
	key     string // identifies the peers
	pods    string // and those of them that are pods
}

// peer is who may be at the other end: pods, nodes, or addresses.
type peer struct {
	pods    *podSelector
	nodes   *nodeSelector // not in a model that is resolved, as service
	service ServiceName   // by its name
	entity  uint32        // identity.World; RemoteNode: all nodes; Host: the subject's own; otherNodes
	cidr    netip.Prefix  // if the others are zero
	except  []netip.Prefix
	// unclear says that pods are all that may be meant: who is, nobody knows. Only a pass has such peers, see splitPasses.
	unclear bool
}

// podSelector chooses pods by cluster, namespace and labels.
type podSelector struct {
	local      bool      // only the local cluster, else clusters
	clusters   *selector // nil: all
	namespace  string    // only this namespace, else namespaces
	namespaces *selector // nil: all
	pods       *selector // nil: all
	accounts   []string  // names of service accounts, ascending; none: all
}

// meansPod says whether a pod with an identity's labels is chosen, wherever it is.
func (s *podSelector) meansPod(l labels.Set) bool {
	return s.pods.matches(l) && (len(s.accounts) == 0 || slices.Contains(s.accounts, l[identity.LabelServiceAccount]))
}

// port is a range of ports of a protocol, or a named one.
type port struct {
	proto    uint8
	from, to uint16 // 0, 0: all; of ICMP as icmp.Port
	name     string // with the protocol, as in World.NamedPorts
}

// isName says whether a peer is to be looked up.
func (p peer) isName() bool { return p.nodes != nil || p.service != (ServiceName{}) }

// isCIDR says whether a peer, of a model that is resolved, is addresses.
func (p *peer) isCIDR() bool { return p.pods == nil && p.entity == 0 }

func (m *Model) problem(text string) { m.problems = append(m.problems, text) }
func (m *Model) warn(text string)    { m.warnings = append(m.warnings, text) }

// close makes a policy that was not understood safe: it isolates its subjects in the directions that it names, and allows nothing.
func (m *Model) close() {
	for _, d := range m.dirs {
		if d != nil {
			d.isolates = true
		}
	}
	m.dropAllows()
}

// dropAllows leaves a policy its isolation and the rules that deny.
func (m *Model) dropAllows() {
	for _, d := range m.dirs {
		if d != nil {
			d.rules = slices.DeleteFunc(d.rules, func(r rule) bool { return !r.kind.denies() })
		}
	}
}
