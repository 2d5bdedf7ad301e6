// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/topology"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

var limits = policy.Limits{Sets: 64, Classes: 64, Identities: 1024, Chunks: 64, Subjects: 64}

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
	w := newWorld(t, NewMemory())
	var before []string
	var out []txtar.File
	for _, f := range archive.Files {
		step, ok := strings.CutSuffix(f.Name, ".in")
		if !ok {
			continue
		}
		w.feed(string(f.Data))
		was := w.plan.Stats()
		changes := w.step()
		now := w.dump()
		text := cost(was, w.plan.Stats()) + diff(before, now) + changes
		for _, problem := range w.plan.Problems() {
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

// world is a planner with its tables.
type world struct {
	t      *testing.T
	tables *table.Tables
	writer *table.RecordWriter
	plan   *Planner
}

func newWorld(t *testing.T, m *Memory) *world {
	w := &world{t: t, tables: table.New()}
	w.writer = w.tables.RecordWriter()
	w.plan = New(Config{Cluster: "east", Node: "east-1", SkipServices: []string{"default/kubernetes"}, Limits: limits}, w.tables, m)
	return w
}

func (w *world) feed(input string) {
	w.t.Helper()
	w.writer.Write(func(txn table.RecordTxn) {
		for line := range strings.Lines(input) {
			line = strings.TrimSpace(line)
			switch {
			case strings.HasPrefix(line, "+ "):
				rec := &recordv1.Record{}
				if err := protojson.Unmarshal([]byte(line[2:]), rec); err != nil {
					w.t.Fatalf("%s: %v", line, err)
				}
				key, err := record.Key(rec)
				if err != nil {
					w.t.Fatalf("%s: %v", line, err)
				}
				o, err := record.Parse(rec)
				if err != nil {
					w.t.Fatalf("%s: %v", line, err)
				}
				txn.Put(key, o)
			case strings.HasPrefix(line, "- "):
				txn.Drop(line[2:])
			case line != "" && line[0] != '#':
				w.t.Fatalf("not understood: %s", line)
			}
		}
	})
}

// step plans until nothing is left to plan, as if every change came into force at once, and prints the changes of policy.
func (w *world) step() string {
	var b strings.Builder
	for d := w.plan.Step(true, true); d != nil; d = w.plan.Step(true, true) {
		if d.Empty() {
			continue
		}
		fmt.Fprintf(&b, "policy: switch %t, %d subjects", d.Switch, len(d.Subjects))
		for _, rows := range []*policy.Rows{&d.Before, &d.After} {
			fmt.Fprintf(&b, "; %d sets, %d classes, %d identities, %d groups", len(rows.Sets), len(rows.Classes), len(rows.Identities), len(rows.Groups))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func cost(was, now Stats) string {
	return fmt.Sprintf("planned: network %d, services %d\n", now.Network-was.Network, now.Services-was.Services)
}

func (w *world) dump() []string {
	t := w.tables
	var out []string
	for _, rows := range [][]string{
		rows(t.Settings), rows(t.Rules), rows(t.Addresses), rows(t.Ranges), rows(t.Guards), rows(t.Pods), rows(t.Frontends),
		rows(t.Slots), rows(t.Peers), rows(t.Routes),
	} {
		out = append(out, rows...)
	}
	return out
}

func rows[K, V comparable](d *table.Desired[K, V]) []string {
	var out []string
	for row := range d.All() {
		out = append(out, fmt.Sprintf("%s %s: %s", d.Name(), table.Format(row.Key), table.Format(row.Value)))
	}
	slices.Sort(out)
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

const restarted = `
+ {"cluster":"east","cluster_info":{"name":"east","id":1,"mesh_id":"lab","pod_cidrs":["10.14.0.0/16"],"service_cidrs":["10.16.0.0/16"]}}
+ {"cluster":"west","cluster_info":{"name":"west","id":2,"mesh_id":"lab","pod_cidrs":["10.24.0.0/16"]}}
+ {"cluster":"east","node":{"name":"east-1","addresses":["10.11.0.11"]}}
+ {"cluster":"west","node":{"name":"west-1","addresses":["10.21.0.11"],"wireguard_public_key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","wireguard_port":51871}}
+ {"cluster":"west","node":{"name":"west-2","addresses":["10.21.0.12"],"wireguard_public_key":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=","wireguard_port":51871}}
+ {"cluster":"east","service":{"namespace":"a","name":"s1","cluster_ips":["10.16.0.1"],"ports":[{"port":80,"protocol":"TCP"}]}}
+ {"cluster":"east","service":{"namespace":"a","name":"s2","cluster_ips":["10.16.0.2"],"ports":[{"port":80,"protocol":"TCP"}]}}
`

func front(addr string) table.Frontend {
	return table.Frontend{Addr: netip.MustParseAddr(addr), Port: 80, Proto: 6}
}

// After a restart numbers are as the kernel still has them: peers keep their index and services their id.
func TestNumbersOutliveARestart(t *testing.T) {
	m := NewMemory()
	m.Address(netip.MustParseAddr("10.21.0.11"), bpf.Remote{Peer: 7, Flags: bpf.RemoteNode})
	m.Address(netip.MustParseAddr("10.21.0.12"), bpf.Remote{Peer: 3, Flags: bpf.RemoteNode})
	m.Frontend(front("10.16.0.1"), bpf.Service{ID: 40})
	m.Frontend(front("10.16.0.9"), bpf.Service{ID: 50})
	w := newWorld(t, m)
	w.feed(restarted)
	w.step()
	for index, node := range map[uint16]string{7: "west-1", 3: "west-2"} {
		if row, ok := w.tables.Peers.Get(index); !ok || row.Value.Node != node {
			t.Errorf("peer %d is %+v, want %s", index, row, node)
		}
	}
	if row, ok := w.tables.Frontends.Get(front("10.16.0.1")); !ok || row.Value.ID != 40 {
		t.Errorf("service of an earlier run = %+v, want id 40", row)
	}
	if row, ok := w.tables.Frontends.Get(front("10.16.0.2")); !ok || row.Value.ID <= 50 {
		t.Errorf("new service = %+v, want an id that nobody had", row)
	}
}

// A row in the kernel of a node that has no record yet keeps its peer's index to itself: packets to that node's pods must not be
// encrypted for another one. It goes with the row.
func TestAnIndexInUseIsNotGivenAway(t *testing.T) {
	m := NewMemory()
	m.Address(netip.MustParseAddr("10.21.0.12"), bpf.Remote{Peer: 2, Flags: bpf.RemoteNode})
	m.Address(netip.MustParseAddr("10.99.0.1"), bpf.Remote{Peer: 1, Flags: bpf.RemoteNode})
	m.Address(netip.MustParseAddr("10.24.9.9"), bpf.Remote{Peer: 3, Identity: 131900})
	w := newWorld(t, m)
	w.feed(restarted)
	w.step()
	of := func(index uint16) string {
		row, _ := w.tables.Peers.Get(index)
		if row.Value == nil {
			return ""
		}
		return row.Value.Node
	}
	if of(1) != "" || of(3) != "" || of(2) != "west-2" || of(4) != "west-1" {
		t.Errorf("peers 1 to 4 are %q, %q, %q, %q, and the kernel has rows of others with 1 and 3", of(1), of(2), of(3), of(4))
	}
	w.plan.ReleaseIndexes()
	w.feed(`+ {"cluster":"west","node":{"name":"west-9","addresses":["10.21.0.19"],"wireguard_public_key":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=","wireguard_port":51871}}`)
	w.step()
	if of(1) != "west-9" {
		t.Errorf("peer 1 is %q once no row bears it", of(1))
	}
}

const nodeWithoutKey = `
+ {"cluster":"east","cluster_info":{"name":"east","id":1,"mesh_id":"lab","pod_cidrs":["10.14.0.0/16"],"encryption":{"mode":"WireGuard","scope":"All"}}}
+ {"cluster":"east","node":{"name":"east-1","addresses":["10.11.0.11"]}}
+ {"cluster":"east","node":{"name":"east-2","addresses":["10.11.0.12"]}}
+ {"cluster":"east","endpoint":{"namespace":"a","name":"p1","node":"east-2","identity":65800,"addresses":["10.14.0.5"]}}
+ {"cluster":"east","endpoint":{"namespace":"a","name":"p2","node":"east-2","identity":65800,"addresses":["10.14.0.6"]}}
`

// Pods of a node that had a key are reached through the tunnel also after a restart without it: the kernel remembers.
func TestEncryptionOutlivesARestartWithoutTheKey(t *testing.T) {
	for _, had := range []bool{false, true} {
		m := NewMemory()
		if had {
			m.Address(netip.MustParseAddr("10.14.0.5"), bpf.Remote{Identity: 65800, Flags: bpf.RemoteTunnel})
		}
		w := newWorld(t, m)
		w.feed(nodeWithoutKey)
		w.step()
		for _, addr := range []string{"10.14.0.5", "10.14.0.6"} {
			if row, ok := w.tables.Addresses.Get(netip.MustParseAddr(addr)); !ok || (row.Value.Flags&bpf.RemoteTunnel != 0) != had {
				t.Errorf("had a key: %t; %s is %+v", had, addr, row.Value)
			}
		}
	}
}

// What the cluster wants encrypted is not less because its record is lost for a moment.
func TestStrictOutlivesTheClustersRecord(t *testing.T) {
	w := newWorld(t, NewMemory())
	w.feed(strings.Replace(nodeWithoutKey, `"scope":"All"`, `"scope":"All","strict":true`, 1))
	w.step()
	w.feed("- east/cluster")
	w.step()
	if row, ok := w.tables.Addresses.Get(netip.MustParseAddr("10.14.0.5")); !ok || row.Value.Flags&bpf.RemoteRequireTunnel == 0 {
		t.Errorf("the pod of another node is believed in the clear: %+v", row.Value)
	}
	if row, _ := w.tables.Settings.Get("config"); !row.Value.Strict {
		t.Error("the node is no longer strict")
	}
}

// Records of two clusters have one number: the first by name counts, and neither takes the other's class with it.
func TestNumbersOfTwoRecords(t *testing.T) {
	const id = 2<<16 | 256
	identity := func(cluster, app string) string {
		return fmt.Sprintf(`+ {"cluster":%q,"identity":{"id":%d,"labels":{"app":%q}}}`+"\n", cluster, id, app)
	}
	gone := func(cluster string) string { return fmt.Sprintf("- %s/identities/%d\n", cluster, id) }
	for _, first := range []string{"west", "occident"} {
		second := map[string]string{"west": "occident", "occident": "west"}[first]
		w := newWorld(t, NewMemory())
		w.feed(identity(first, first) + identity(second, second))
		w.step()
		if got := w.plan.policy.identities[id].cluster; got != "occident" || len(w.plan.policy.twins) != 1 {
			t.Errorf("%s came first: %s counts", first, got)
		}
		w.feed(gone(second))
		if d := w.plan.Step(true, true); d != nil {
			if class, changed := d.Before.Identities[id]; changed && class == nil {
				t.Errorf("%s went, and took the class of %s with it", second, first)
			}
		}
		if got := w.plan.policy.identities[id].cluster; got != first || len(w.plan.policy.twins) != 0 {
			t.Errorf("%s went: %s counts", second, got)
		}
		w.feed(gone(first))
		w.step()
		if len(w.plan.policy.identities) != 0 {
			t.Errorf("left: %v", w.plan.policy.identities)
		}
	}
}

func TestAPlanOfNothingNewIsNoWork(t *testing.T) {
	w := newWorld(t, NewMemory())
	w.feed(restarted)
	w.step()
	was, watch := w.plan.Stats(), w.tables.Addresses.Watch()
	if d := w.plan.Step(true, true); d != nil {
		t.Errorf("a step without changes changes policy: %+v", d)
	}
	if now := w.plan.Stats(); now != was {
		t.Errorf("a step without changes planned: %+v, before %+v", now, was)
	}
	select {
	case <-watch:
		t.Error("a step without changes wrote rows")
	default:
	}
}

// A pod that the disk doesn't know yet keeps being a subject until the relay has sent all pods of the node: a subject that
// is dropped would be cut off.
func TestASubjectStaysUntilThePodsAreKnown(t *testing.T) {
	m := NewMemory()
	key := policy.SubjectKey{Identity: 1<<16 | 300, Dir: policy.Ingress}
	m.Policy.Subjects = map[policy.SubjectKey]policy.Subject{key: {}}
	w := newWorld(t, m)
	w.feed(restarted)
	d := w.plan.Step(true, false)
	if s, ok := d.Subjects[key]; ok && s == nil {
		t.Fatal("a subject of the earlier run goes before the pods are known")
	}
	d = w.plan.Step(true, true)
	if d == nil || d.Subjects[key] != nil || !slices.Contains(slices.Collect(maps.Keys(d.Subjects)), key) {
		t.Fatalf("a subject without pods stays: %+v", d)
	}
}

// topology's flags are written into the datapath's rows as they are.
func TestFlagsAreTheDatapaths(t *testing.T) {
	for flag, want := range map[topology.Flags]uint8{
		topology.Tunnel: bpf.RemoteTunnel, topology.RequireTunnel: bpf.RemoteRequireTunnel,
		topology.NodeAddress: bpf.RemoteNode, topology.ServiceRange: bpf.RemoteService,
	} {
		if uint8(flag) != want {
			t.Errorf("flag %d is %d in the datapath", flag, want)
		}
	}
}
