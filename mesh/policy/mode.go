// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/fairlead-mesh/fairlead/mesh/record"

// setMode takes over what others than the spec say of the policy's mode. A policy that is in Audit mode itself is on trial and
// opens nothing. One that was enforced keeps what it opens when its namespace or its cluster has it audited: who calls off
// denials for a while must not close what a Baseline, or a policy of the cluster that isolates, leaves to it.
func (m *Model) setMode(by record.Mode) {
	if by.Audit() && !m.audit {
		m.audit, m.opens = true, true
	}
}

// verdict of the lines of a rule.
func (m *Model) verdict(kind RuleKind) Verdict {
	return verdict(kind, m.audit && !(m.opens && kind == RuleAllow))
}
