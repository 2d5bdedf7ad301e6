// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/statedb"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// TestStories feeds records into the tables, step by step, and compares what changes among the desired rows. In a step's
// input "+" brings a record (JSON) and "-" takes one (its key).
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { story(t, file) })
	}
}

func story(t *testing.T, file string) {
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tables := newTables(t)
	p, err := New(Config{Cluster: "east", Node: "east-1", SkipServices: []string{"default/kubernetes"}}, tables, Memory{})
	if err != nil {
		t.Fatal(err)
	}
	var before []string
	var out []txtar.File
	for _, f := range archive.Files {
		step, ok := strings.CutSuffix(f.Name, ".in")
		if !ok {
			continue
		}
		feed(t, tables, string(f.Data))
		was := p.Stats()
		if _, err := p.Step(); err != nil {
			t.Fatalf("%s: %v", step, err)
		}
		now := dump(tables)
		text := cost(was, p.Stats()) + diff(before, now)
		for _, problem := range p.Problems() {
			text += "! " + problem + "\n"
		}
		before = now
		out = append(out, f, txtar.File{Name: step + ".out", Data: []byte(text)})
	}
	want := txtar.Format(archive)
	got := txtar.Format(&txtar.Archive{Comment: archive.Comment, Files: out})
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(got) != string(want) {
		t.Errorf("%s: came out as\n%s\n(go test -update writes it down)", file, got)
	}
}

func newTables(t *testing.T) *table.Tables {
	t.Helper()
	tables := table.New()
	return tables
}

func feed(t *testing.T, tables *table.Tables, input string) {
	t.Helper()
	var changes []table.Change
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "+ "):
			rec := &recordv1.Record{}
			if err := protojson.Unmarshal([]byte(line[2:]), rec); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			key, err := record.Key(rec)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			changes = append(changes, table.Change{Key: key, Record: rec})
		case strings.HasPrefix(line, "- "):
			changes = append(changes, table.Change{Key: line[2:]})
		case line != "" && line[0] != '#':
			t.Fatalf("not understood: %s", line)
		}
	}
	if err := tables.WriteRecords(changes); err != nil {
		t.Fatal(err)
	}
}

func cost(was, now Stats) string {
	return fmt.Sprintf("planned: network %d, policies %d, services %d\n",
		now.Network-was.Network, now.Policies-was.Policies, now.Services-was.Services)
}

func dump(t *table.Tables) []string {
	txn := t.DB.ReadTxn()
	var out []string
	for _, rows := range [][]string{
		rows(txn, t.Settings), rows(txn, t.Entries), rows(txn, t.Subjects), rows(txn, t.Rules), rows(txn, t.Addresses),
		rows(txn, t.Ranges), rows(txn, t.Pods), rows(txn, t.Frontends), rows(txn, t.Slots), rows(txn, t.Peers), rows(txn, t.Routes),
	} {
		out = append(out, rows...)
	}
	return out
}

func rows[K, V comparable](txn statedb.ReadTxn, d *table.Desired[K, V]) []string {
	var out []string
	for row := range d.All(txn) {
		out = append(out, fmt.Sprintf("%s %s: %s", d.Name(), table.Format(row.Key), table.Format(row.Value)))
	}
	return out
}

func diff(before, now []string) string {
	var b strings.Builder
	for _, line := range before {
		if !slices.Contains(now, line) {
			b.WriteString("- " + line + "\n")
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			b.WriteString("+ " + line + "\n")
		}
	}
	return b.String()
}

// After a restart numbers are as the kernel still has them: peers keep their index, services their id, and CIDRs their
// identity.
func TestNumbersOutliveARestart(t *testing.T) {
	const world = `
+ {"cluster":"east","cluster_info":{"name":"east","id":1,"pod_cidrs":["10.14.0.0/16"],"service_cidrs":["10.16.0.0/16"]}}
+ {"cluster":"west","cluster_info":{"name":"west","id":2,"pod_cidrs":["10.24.0.0/16"]}}
+ {"cluster":"east","node":{"name":"east-1","addresses":["10.11.0.11"]}}
+ {"cluster":"west","node":{"name":"west-1","addresses":["10.21.0.11"],"wireguard_public_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","wireguard_port":51871}}
+ {"cluster":"west","node":{"name":"west-2","addresses":["10.21.0.12"],"wireguard_public_key":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","wireguard_port":51871}}
+ {"cluster":"east","service":{"namespace":"a","name":"s1","cluster_ips":["10.16.0.1"],"ports":[{"port":80,"protocol":"TCP"}]}}
+ {"cluster":"east","service":{"namespace":"a","name":"s2","cluster_ips":["10.16.0.2"],"ports":[{"port":80,"protocol":"TCP"}]}}
`
	front := func(addr string) table.Frontend {
		return table.Frontend{Addr: netip.MustParseAddr(addr), Port: 80, Proto: 6}
	}
	memory := Memory{
		Addresses: map[netip.Addr]bpf.Remote{
			netip.MustParseAddr("10.21.0.11"): {Peer: 7, Flags: bpf.RemoteNode},
			netip.MustParseAddr("10.21.0.12"): {Peer: 3, Flags: bpf.RemoteNode},
		},
		Frontends: map[table.Frontend]bpf.Service{front("10.16.0.1"): {ID: 40}, front("10.16.0.9"): {ID: 50}},
	}
	tables := newTables(t)
	feed(t, tables, world)
	p, err := New(Config{Cluster: "east", Node: "east-1"}, tables, memory)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Step(); err != nil {
		t.Fatal(err)
	}
	txn := tables.DB.ReadTxn()
	for index, node := range map[uint16]string{7: "west-1", 3: "west-2"} {
		if row, ok := tables.Peers.Get(txn, index); !ok || row.Value.Node != node {
			t.Errorf("peer %d is %+v, want %s", index, row, node)
		}
	}
	if row, ok := tables.Frontends.Get(txn, front("10.16.0.1")); !ok || row.Value.ID != 40 {
		t.Errorf("service of an earlier run = %+v, want id 40", row)
	}
	if row, ok := tables.Frontends.Get(txn, front("10.16.0.2")); !ok || row.Value.ID <= 50 {
		t.Errorf("new service = %+v, want an id that nobody had", row)
	}
}

func TestAPlanOfNothingNewIsNoWork(t *testing.T) {
	tables := newTables(t)
	p, err := New(Config{Cluster: "east", Node: "east-1"}, tables, Memory{})
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := p.Step(); err != nil || !changed {
		t.Fatalf("first step: %t, %v", changed, err)
	}
	before := tables.Addresses.Watch(tables.DB.ReadTxn())
	if changed, err := p.Step(); err != nil || changed {
		t.Errorf("second step: %t, %v", changed, err)
	}
	select {
	case <-before:
		t.Error("a step without changes wrote rows")
	default:
	}
}
