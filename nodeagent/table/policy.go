// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// Policy is a policy's record with what is read out of it once, when it comes.
type Policy struct {
	*record.Policy
	Model *policy.Model
}

func newPolicy(_ string, p *record.Policy) *Policy { return &Policy{Policy: p, Model: policy.Parse(p)} }

func (p *Policy) record() *record.Policy { return p.Policy }
