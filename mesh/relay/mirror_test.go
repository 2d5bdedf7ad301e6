// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"iter"
	"maps"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

// mirror is a State with the records that it decides about.
type mirror struct {
	*State
	records map[string]*recordv1.Record
}

func newMirror() *mirror { return &mirror{NewState(), map[string]*recordv1.Record{}} }

// Apply gives the changes that changed something.
func (m *mirror) Apply(b *relayv1.Batch) []*relayv1.Change {
	var out []*relayv1.Change
	for _, c := range m.State.Apply(b, maps.Keys(m.records)) {
		have, held := m.records[c.GetKey()]
		switch {
		case c.GetRecord() == nil && held:
			delete(m.records, c.GetKey())
		case c.GetRecord() != nil && !(held && proto.Equal(have, c.GetRecord())):
			m.records[c.GetKey()] = c.GetRecord()
		default:
			continue
		}
		out = append(out, c)
	}
	return out
}

// restart keeps what an agent has on its disk.
func (m *mirror) restart() *mirror { return &mirror{RestoreState(m.Clusters(), m.Saved()), m.records} }

func (m *mirror) All() iter.Seq2[string, *recordv1.Record] { return maps.All(m.records) }
func (m *mirror) Get(key string) *recordv1.Record          { return m.records[key] }
func (m *mirror) Len() int                                 { return len(m.records) }
