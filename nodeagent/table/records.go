// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package table

import (
	"fmt"
	"iter"
	"net/netip"
	"strings"

	"github.com/cilium/statedb"
	"github.com/cilium/statedb/index"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Record is a record of one kind as it came with the stream. Nobody changes Body.
type Record[B any] struct {
	Key     string
	Cluster string
	Body    B
}

// TableHeader names the columns of a printed record.
func (*Record[B]) TableHeader() []string { return []string{"Key", "Body"} }

// TableRow prints the record.
func (r *Record[B]) TableRow() []string { return []string{r.Key, fmt.Sprint(r.Body)} }

// Records is a table of one kind of record.
type Records[B any] struct {
	rows  statedb.RWTable[*Record[B]]
	byKey statedb.Index[*Record[B], string]
	// lookup finds records by what they are about (address, service, node); nil where nobody asks.
	lookup *statedb.Index[*Record[B], string]
}

// newRecords makes a table; terms, if not nil, says by which words a record is found.
func newRecords[B any](db *statedb.DB, name string, terms func(*Record[B]) []string) (*Records[B], error) {
	t := &Records[B]{byKey: statedb.Index[*Record[B], string]{
		Name:       "key",
		FromObject: func(r *Record[B]) index.KeySet { return index.NewKeySet(index.String(r.Key)) },
		FromKey:    index.String,
		Unique:     true,
	}}
	var secondary []statedb.Indexer[*Record[B]]
	if terms != nil {
		t.lookup = &statedb.Index[*Record[B], string]{
			Name:       "term",
			FromObject: func(r *Record[B]) index.KeySet { return index.StringSlice(terms(r)) },
			FromKey:    index.String,
		}
		secondary = append(secondary, *t.lookup)
	}
	rows, err := statedb.NewTable(db, name, t.byKey, secondary...)
	if err != nil {
		return nil, fmt.Errorf("creating table %s: %w", name, err)
	}
	t.rows = rows
	return t, nil
}

// All yields every record.
func (t *Records[B]) All(txn statedb.ReadTxn) iter.Seq[*Record[B]] {
	return statedb.ToSeq(t.rows.All(txn))
}

// Get returns the record with this key.
func (t *Records[B]) Get(txn statedb.ReadTxn, key string) (*Record[B], bool) {
	r, _, ok := t.rows.Get(txn, t.byKey.Query(key))
	return r, ok
}

// About yields the records filed under a term.
func (t *Records[B]) About(txn statedb.ReadTxn, term string) iter.Seq[*Record[B]] {
	return statedb.ToSeq(t.rows.List(txn, t.lookup.Query(term)))
}

// Len returns the number of records.
func (t *Records[B]) Len(txn statedb.ReadTxn) int { return t.rows.NumObjects(txn) }

func (t *Records[B]) changes(db *statedb.DB) (statedb.ChangeIterator[*Record[B]], error) {
	txn := db.WriteTxn(t.rows)
	defer txn.Abort()
	changes, err := t.rows.Changes(txn)
	if err != nil {
		return nil, fmt.Errorf("following table %s: %w", t.rows.Name(), err)
	}
	txn.Commit()
	return changes, nil
}

func (t *Records[B]) put(txn statedb.WriteTxn, key, cluster string, body B) error {
	_, _, err := t.rows.Insert(txn, &Record[B]{Key: key, Cluster: cluster, Body: body})
	return err
}

func (t *Records[B]) drop(txn statedb.WriteTxn, key string) error {
	if old, ok := t.Get(txn, key); ok {
		_, _, err := t.rows.Delete(txn, old)
		return err
	}
	return nil
}

// ServiceTerm files services and their slices, of every cluster, under one word.
func ServiceTerm(namespace, name string) string { return namespace + "/" + name }

// AddressTerm files endpoints under each of their addresses.
func AddressTerm(addr netip.Addr) string { return "addr/" + addr.String() }

// NodeTerm files endpoints under the node that runs them.
func NodeTerm(cluster, node string) string { return "node/" + cluster + "/" + node }

func endpointTerms(r *Record[*recordv1.Endpoint]) []string {
	terms := []string{NodeTerm(r.Cluster, r.Body.Node)}
	for _, a := range r.Body.Addresses {
		if addr, err := netip.ParseAddr(a); err == nil {
			terms = append(terms, AddressTerm(addr.Unmap()))
		}
	}
	return terms
}

func serviceTerms(r *Record[*recordv1.Service]) []string {
	return []string{ServiceTerm(r.Body.Namespace, r.Body.Name)}
}

func sliceTerms(r *Record[*recordv1.BackendSlice]) []string {
	return []string{ServiceTerm(r.Body.Namespace, r.Body.Service)}
}

// kindOf returns the kind part of a record key: <cluster>/<kind>[/…].
func kindOf(key string) string {
	parts := strings.SplitN(key, "/", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}
