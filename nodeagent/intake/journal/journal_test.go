// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

const origin = "v1.0 test"

func change(key, zone string) *relayv1.Change {
	c := &relayv1.Change{Key: key}
	if zone != "" {
		c.Record = &recordv1.Record{Cluster: "east", Payload: &recordv1.Record_Node{Node: &recordv1.Node{Name: key, Zone: zone}}}
	}
	return c
}

func encoded(t rapid.TB, changes ...*relayv1.Change) [][]byte {
	var out [][]byte
	for _, c := range changes {
		data, err := Encode(c)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, data)
	}
	return out
}

func markAt(revision uint64) *Mark {
	return &Mark{At: &relayv1.ResumePoint{Epoch: "e", Revision: revision}, Clusters: []*relayv1.ClusterState{{Name: "east", Local: true}}}
}

// inMemory gives a small file system of its own, where a sync costs nothing.
func inMemory(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, size); err != nil {
		t.Fatalf("mount a small file system (run as root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// state is what a file comes to.
type state struct {
	records  map[string]string // key → zone
	revision uint64
}

func (s state) equal(o state) bool {
	return s.revision == o.revision && maps.Equal(s.records, o.records)
}

func restored(j *Journal) (state, error) {
	s := state{records: map[string]string{}}
	m, err := j.Restore(func(c *relayv1.Change) error {
		if c.GetRecord() == nil {
			delete(s.records, c.GetKey())
		} else {
			s.records[c.GetKey()] = c.GetRecord().GetNode().GetZone()
		}
		return nil
	})
	s.revision = m.At.GetRevision()
	return s, err
}

func must(t rapid.TB, err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// marked is a state, and how long the file was with it.
type marked struct {
	state
	end int64
}

// world drives one journal beside a simple model of it.
type world struct {
	t      *rapid.T
	j      *Journal
	path   string
	now    state
	marks  []marked // what the present file may give, oldest first
	number uint64
}

func (w *world) append() {
	var changes []*relayv1.Change
	for range rapid.IntRange(0, 3).Draw(w.t, "changes") {
		key := fmt.Sprintf("east/nodes/n%d", rapid.IntRange(0, 5).Draw(w.t, "key"))
		w.number++
		c := change(key, fmt.Sprint(w.number))
		w.now.records[key] = fmt.Sprint(w.number)
		if rapid.Bool().Draw(w.t, "drop") {
			c.Record = nil
			delete(w.now.records, key)
		}
		changes = append(changes, c)
	}
	if !rapid.Bool().Draw(w.t, "mark") {
		must(w.t, w.j.Append(encoded(w.t, changes...), nil))
		return
	}
	w.number++
	w.now.revision = w.number
	must(w.t, w.j.Append(encoded(w.t, changes...), markAt(w.number)))
	w.marks = append(w.marks, marked{state{maps.Clone(w.now.records), w.number}, w.j.Size()})
}

func (w *world) compact() {
	if w.j.file == nil {
		return
	}
	before := w.j.Size()
	must(w.t, w.j.compact())
	if len(w.marks) == 0 || w.marks[len(w.marks)-1].end != before {
		return // not a whole state: nothing happens
	}
	last := w.marks[len(w.marks)-1]
	w.marks = []marked{{last.state, w.j.Size()}}
}

func (w *world) restart() {
	must(w.t, w.j.Close())
	w.j = New(w.path, origin)
	s, err := restored(w.j)
	w.compare(s, err, w.marks)
	w.now = state{records: map[string]string{}}
	if len(w.marks) > 0 {
		last := w.marks[len(w.marks)-1]
		w.now = state{maps.Clone(last.records), last.revision}
	}
}

// compare holds what was restored against the last of what it may be.
func (w *world) compare(got state, err error, want []marked) {
	if len(want) == 0 {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, fs.ErrNotExist) {
			w.t.Fatalf("restored %v (%v), want nothing", got, err)
		}
		return
	}
	if last := want[len(want)-1]; err != nil || !got.equal(last.state) {
		w.t.Fatalf("restored %v (%v), want %v", got, err, last.state)
	}
}

// harm reads a copy of the file that was cut off or damaged at some byte: what it gives is the last state before that byte.
func (w *world) harm() {
	data, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	must(w.t, err)
	at := rapid.IntRange(0, len(data)-1).Draw(w.t, "at")
	if rapid.Bool().Draw(w.t, "cut") {
		data = data[:at]
	} else {
		data[at] ^= byte(1 << rapid.IntRange(0, 7).Draw(w.t, "bit"))
	}
	var want []marked
	for _, m := range w.marks {
		if m.end <= int64(at) {
			want = append(want, m)
		}
	}
	path := w.path + ".copy"
	must(w.t, os.WriteFile(path, data, 0o600))
	j := New(path, origin)
	got, err := restored(j)
	if at < len(magicV2) {
		if !errors.Is(err, ErrForeign) && !errors.Is(err, ErrDamaged) {
			w.t.Fatalf("a damaged magic gives %v (%v)", got, err)
		}
	} else {
		w.compare(got, err, want)
	}
	// Whatever it was, the journal goes on from there.
	must(w.t, j.Append(encoded(w.t, change("east/nodes/new", "z")), markAt(1<<40)))
	must(w.t, j.Close())
	again, err := restored(New(path, origin))
	if got.records == nil || err != nil {
		w.t.Fatalf("after an append: %v", err)
	}
	if at >= len(magicV2) && len(want) > 0 {
		got.records["east/nodes/new"] = "z"
	} else {
		got.records = map[string]string{"east/nodes/new": "z"}
	}
	if !maps.Equal(again.records, got.records) {
		w.t.Fatalf("restored %v, want %v", again.records, got.records)
	}
}

// Whatever is appended, compacted, restarted and damaged in whatever order, a file gives the last whole state before the
// damage, or nothing.
func TestAFileGivesTheLastWholeState(t *testing.T) {
	base := inMemory(t, "size=64m")
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "journal")
		must(rt, err)
		defer os.RemoveAll(dir)
		w := &world{t: rt, path: filepath.Join(dir, "snapshot"), now: state{records: map[string]string{}}}
		w.j = New(w.path, origin)
		rt.Repeat(map[string]func(*rapid.T){
			"append":  func(*rapid.T) { w.append() },
			"compact": func(*rapid.T) { w.compact() },
			"restart": func(*rapid.T) { w.restart() },
			"harm":    func(*rapid.T) { w.harm() },
		})
		must(rt, w.j.Close())
	})
}

// Every single byte, not only those that were drawn.
func TestAFileDamagedAtAnyByteGivesAnEarlierState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	j := New(path, origin)
	states := map[uint64]map[string]string{}
	now := map[string]string{}
	for n := range uint64(4) {
		key := fmt.Sprintf("east/nodes/n%d", n%3)
		now[key] = fmt.Sprint(n)
		must(t, j.Append(encoded(t, change(key, now[key])), markAt(n+1)))
		states[n+1] = maps.Clone(now)
	}
	must(t, j.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	harmed := filepath.Join(t.TempDir(), "snapshot")
	for at := range good {
		flipped := bytes.Clone(good)
		flipped[at] ^= 0x10
		for name, data := range map[string][]byte{"cut": good[:at], "flipped": flipped} {
			must(t, os.WriteFile(harmed, data, 0o600))
			s, err := restored(New(harmed, origin))
			if err == nil && !maps.Equal(s.records, states[s.revision]) {
				t.Errorf("%s at %d: revision %d with %v, want %v", name, at, s.revision, s.records, states[s.revision])
			}
			if err != nil && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
				t.Errorf("%s at %d: error = %v", name, at, err)
			}
		}
	}
}

func TestRecordsOfAnotherVersionAreReadAndNotResumedFrom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "snapshot")
	j := New(path, "v1.0")
	must(t, j.Append(encoded(t, change("east/nodes/a", "1")), markAt(7)))
	must(t, j.Close())
	j = New(path, "v1.1")
	s, err := restored(j)
	if err != nil || s.revision != 0 || s.records["east/nodes/a"] != "1" {
		t.Fatalf("restored %v, %v", s, err)
	}
	must(t, j.Append(nil, markAt(9)))
	must(t, j.Close())
	if s, err := restored(New(path, "v1.1")); err != nil || s.revision != 9 || len(s.records) != 1 {
		t.Errorf("restored %v, %v", s, err)
	}
}

// The figures of the package's promise: a change costs the change.
func TestWritesAreProportionalToChange(t *testing.T) {
	const records = 2000
	path := filepath.Join(inMemory(t, "size=64m"), "snapshot")
	j := New(path, origin)
	var all []*relayv1.Change
	for n := range records {
		all = append(all, change(fmt.Sprintf("east/nodes/n%d", n), "first"))
	}
	must(t, j.Append(encoded(t, all...), markAt(1)))
	first := j.Size()
	var appended, copied, longest int64
	for n := 0; appended <= 8*slack; n++ {
		before := j.Size()
		var batch [][]byte
		for k := range 100 {
			batch = append(batch, encoded(t, change(fmt.Sprintf("east/nodes/n%d", (n*100+k)%records), fmt.Sprint(n)))...)
		}
		must(t, j.Append(batch, markAt(uint64(n))))
		appended += j.Size() - before
		before = j.Size()
		longest = max(longest, before)
		must(t, j.Compact(records))
		if j.Size() < before {
			copied += j.Size()
		}
	}
	must(t, j.Close())
	if copied == 0 || copied > appended {
		t.Errorf("%d bytes appended, %d copied", appended, copied)
	}
	if longest > 2*first+2*slack {
		t.Errorf("the file grew to %d bytes where %d are current", longest, first)
	}
	if s, err := restored(New(path, origin)); err != nil || len(s.records) != records {
		t.Errorf("%d records restored, %v", len(s.records), err)
	}
}

// On a full disk the last state stays, and what was not written is written when there is space.
func TestAFullDiskKeepsTheLastState(t *testing.T) {
	dir := inMemory(t, "size=64k")
	path := filepath.Join(dir, "snapshot")
	j := New(path, origin)
	must(t, j.Append(encoded(t, change("east/nodes/a", "1")), markAt(1)))
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	var many []*relayv1.Change
	for n := range 500 {
		many = append(many, change(fmt.Sprintf("east/nodes/n%d", n), "2"))
	}
	for range 3 {
		if err := j.Append(encoded(t, many...), markAt(2)); !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("error = %v, want no space left", err)
		}
		if s, err := restored(New(path, origin)); err != nil || s.revision != 1 || len(s.records) != 1 {
			t.Fatalf("on a full disk: %v, %v", s, err)
		}
	}
	must(t, os.Remove(ballast))
	must(t, j.Append(encoded(t, many...), markAt(2)))
	must(t, j.Close())
	if s, err := restored(New(path, origin)); err != nil || s.revision != 2 || len(s.records) != 501 {
		t.Errorf("after there is space again: %d records at %d, %v", len(s.records), s.revision, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v, %v", left, err)
	}
}

// A file system that turned read-only is said, and tried again.
func TestAReadOnlyDiskIsTriedAgain(t *testing.T) {
	dir := inMemory(t, "size=1m")
	path := filepath.Join(dir, "snapshot")
	j := New(path, origin)
	must(t, j.Append(encoded(t, change("east/nodes/a", "1")), markAt(1)))
	must(t, j.Close())
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	j = New(path, origin)
	if s, err := restored(j); err != nil || len(s.records) != 1 {
		t.Fatalf("restored %v, %v", s, err)
	}
	b := encoded(t, change("east/nodes/b", "1"))
	if err := j.Append(b, markAt(2)); !errors.Is(err, unix.EROFS) {
		t.Fatalf("error = %v, want a read-only file system", err)
	}
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, ""))
	must(t, j.Append(b, markAt(2)))
	must(t, j.Close())
	if s, err := restored(New(path, origin)); err != nil || len(s.records) != 2 {
		t.Errorf("restored %v, %v", s, err)
	}
}

// Whatever lies on the disk: an error, or what an unbroken chain of frames says. No panic, no large memory.
func FuzzScan(f *testing.F) {
	path := filepath.Join(f.TempDir(), "snapshot")
	j := New(path, origin)
	must(f, j.Append(encoded(f, change("east/nodes/a", "1")), markAt(1)))
	must(f, j.Append(encoded(f, change("east/nodes/a", "")), markAt(2)))
	must(f, j.Close())
	good, err := os.ReadFile(path)
	must(f, err)
	f.Add(good[len(magicV2):])
	f.Add(good[len(magicV2) : len(good)-3])
	f.Add([]byte("\xff\xff\xff\xff\x00\x00\x00\x00c"))
	f.Fuzz(func(t *testing.T, data []byte) { scanAndReplay(t, data) })
}

// A chain that holds proves that the bytes are what somebody wrote, not that they mean anything.
func FuzzPayloads(f *testing.F) {
	f.Add(encoded(f, change("east/nodes/a", "1"))[0], true)
	f.Add([]byte{0x0a, 0xff}, false)
	f.Fuzz(func(t *testing.T, payload []byte, withRecord bool) {
		var c chain
		file := c.add(nil, frameOrigin, payload)
		file = c.add(file, frameChange, payload)
		if withRecord {
			file = c.add(file, frameMark, payload)
		}
		scanAndReplay(t, c.add(file, frameMark, nil))

		decoded := &relayv1.Change{}
		key, put, err := peek(payload)
		if proto.Unmarshal(payload, decoded) == nil && (err != nil || string(key) != decoded.GetKey() || put != (decoded.Record != nil)) {
			t.Errorf("peek gives %q, %t, %v of %v", key, put, err, decoded)
		}
	})
}

func scanAndReplay(t *testing.T, data []byte) {
	t.Helper()
	s, err := scan(bytes.NewReader(data))
	if err != nil {
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("error = %v", err)
		}
		return
	}
	n := 0
	err = replay(bytes.NewReader(data), s, func(*relayv1.Change) error { n++; return nil })
	if err == nil && n != s.changes || err != nil && !errors.Is(err, ErrDamaged) {
		t.Errorf("%d of %d changes, %v", n, s.changes, err)
	}
}

// The reader of the former format gets whatever comes, too.
func FuzzDecodeV1(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := decodeV1(bufio.NewReader(bytes.NewReader(data)), func(*relayv1.Change) error { return nil })
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("error = %v", err)
		}
	})
}
