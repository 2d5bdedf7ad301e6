// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
)

// kernel is a target in memory that outlives followers.
type kernel[K, V comparable] struct {
	rows   map[K]V
	refuse func() bool
	writes int
	why    error // refuse, errRefused if nil
}

var errRefused = errors.New("refused")

func newKernel[K, V comparable]() *kernel[K, V] {
	return &kernel[K, V]{rows: map[K]V{}, refuse: func() bool { return false }}
}

func (k *kernel[K, V]) Update(_ context.Context, key K, value V) error {
	if k.refuse() {
		return cmp.Or(k.why, errRefused)
	}
	k.writes++
	k.rows[key] = value
	return nil
}

func (k *kernel[K, V]) Delete(_ context.Context, key K) error {
	if k.refuse() {
		return errRefused
	}
	k.writes++
	delete(k.rows, key)
	return nil
}

func (k *kernel[K, V]) Have(context.Context) (map[K]V, error) {
	if k.refuse() {
		return nil, errRefused
	}
	return maps.Clone(k.rows), nil
}

// node is an agent's memory over kernels that survive it.
type node struct {
	t     rapid.TB
	slots *kernel[bpf.SlotKey, bpf.Backend]
	front *kernel[table.Frontend, bpf.Service]

	tables   *table.Tables
	loop     *Loop
	now      time.Time
	ownSlots *table.Owned[bpf.SlotKey, bpf.Backend]
	ownFront *table.Owned[table.Frontend, bpf.Service]
}

func (n *node) use(tables *table.Tables, slots Target[bpf.SlotKey, bpf.Backend], front Target[table.Frontend, bpf.Service]) {
	w := tables.ForPlan()
	n.tables, n.ownSlots, n.ownFront = tables, table.NewOwned(w.Slots), table.NewOwned(w.Frontends)
	n.loop = NewLoop(tables, Follow(tables.Slots, slots), Follow(tables.Frontends, front))
}

func newNode(t rapid.TB) *node {
	return &node{t: t, slots: newKernel[bpf.SlotKey, bpf.Backend](), front: newKernel[table.Frontend, bpf.Service](), now: time.Unix(0, 0)}
}

// start forgets everything but the kernels.
func (n *node) start() {
	n.stop()
	tables := table.New()
	n.use(tables, OneByOne[bpf.SlotKey, bpf.Backend](n.slots), OneByOne[table.Frontend, bpf.Service](n.front))
}

func (n *node) stop() {
	if n.tables == nil {
		return
	}
	n.tables = nil
}

func (n *node) want(slots map[bpf.SlotKey]bpf.Backend, front map[table.Frontend]bpf.Service) {
	n.t.Helper()
	n.tables.Write(func(txn *table.Txn) {
		n.ownSlots.Set(txn, "o", maps.Clone(slots))
		n.ownFront.Set(txn, "o", maps.Clone(front))
	})
}

func (n *node) pass(complete bool) Pass {
	n.t.Helper()
	return n.loop.Pass(context.Background(), n.now, func(string) bool { return complete })
}

func service(backends uint32) (map[bpf.SlotKey]bpf.Backend, map[table.Frontend]bpf.Service) {
	slots := map[bpf.SlotKey]bpf.Backend{}
	for i := range backends {
		slots[bpf.SlotKey{Service: 1, Slot: i}] = bpf.Backend{ID: i + 1}
	}
	return slots, map[table.Frontend]bpf.Service{{Port: 80, Proto: 6}: {ID: 1, Backends: backends}}
}

// Whatever was wanted in between, however often the kernel refused and the agent was killed: in the end the kernel holds
// what is wanted and nothing else.
func TestTheKernelEndsAsDesired(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newNode(t)
		n.start()
		defer n.stop()
		refusal := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 50).Draw(t, "refusals")
		calls, faults := 0, true
		refuse := func() bool {
			calls++
			return faults && refusal[calls%len(refusal)] == 0
		}
		n.slots.refuse, n.front.refuse = refuse, refuse
		var slots map[bpf.SlotKey]bpf.Backend
		var front map[table.Frontend]bpf.Service
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				n.start()
				if slots != nil {
					n.want(slots, front)
				}
			case 1:
				n.pass(rapid.Bool().Draw(t, "complete") && slots != nil)
				n.now = n.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			case 2:
				n.loop.Resync()
			default:
				slots = rapid.MapOfN(rapid.Custom(drawSlot), rapid.Custom(drawBackend), 0, 5).Draw(t, "slots")
				front = rapid.MapOfN(rapid.Custom(drawFrontend), rapid.Custom(drawService), 0, 3).Draw(t, "frontends")
				n.want(slots, front)
			}
		}
		faults = false
		if slots == nil {
			return
		}
		for range 3 {
			n.now = n.now.Add(time.Minute)
			n.pass(true)
		}
		if !maps.Equal(n.slots.rows, slots) {
			t.Errorf("slots: kernel has %v, want %v", n.slots.rows, slots)
		}
		if !maps.Equal(n.front.rows, front) {
			t.Errorf("frontends: kernel has %v, want %v", n.front.rows, front)
		}
		for row := range n.tables.Slots.All() {
			if row.Status.State != table.Done {
				t.Errorf("%v is %v", row.Key, row.Status)
			}
		}
	})
}

// A row whose removal was refused is wanted again before a resync finds it in the kernel: what still waited to be removed
// is no longer to go.
func TestARowWantedAgainIsNotRemoved(t *testing.T) {
	n := newNode(t)
	n.start()
	defer n.stop()
	slots, front := service(1)
	n.want(slots, front)
	n.pass(true)

	n.slots.refuse = func() bool { return true }
	n.want(nil, nil)
	n.pass(true)
	n.slots.refuse = func() bool { return false }

	n.want(slots, front)
	n.loop.Resync()
	n.pass(true)
	n.now = n.now.Add(time.Minute)
	n.pass(true)
	if !maps.Equal(n.slots.rows, slots) {
		t.Errorf("slots: kernel has %v, want %v", n.slots.rows, slots)
	}
}

func drawSlot(t *rapid.T) bpf.SlotKey {
	return bpf.SlotKey{Service: rapid.Uint32Range(1, 3).Draw(t, "service"), Slot: rapid.Uint32Range(0, 3).Draw(t, "slot")}
}

func drawBackend(t *rapid.T) bpf.Backend {
	return bpf.Backend{ID: rapid.Uint32Range(1, 9).Draw(t, "id")}
}

func drawFrontend(t *rapid.T) table.Frontend {
	return table.Frontend{Port: rapid.Uint16Range(1, 5).Draw(t, "port"), Proto: 6}
}

func drawService(t *rapid.T) bpf.Service {
	return bpf.Service{ID: rapid.Uint32Range(1, 3).Draw(t, "id"), Backends: rapid.Uint32Range(0, 3).Draw(t, "backends")}
}

// watched checks an invariant after each operation of either target.
type watched[K, V comparable] struct {
	*kernel[K, V]
	check func()
}

func (w watched[K, V]) Update(ctx context.Context, key K, value V) error {
	defer w.check()
	return w.kernel.Update(ctx, key, value)
}

func (w watched[K, V]) Delete(ctx context.Context, key K) error {
	defer w.check()
	return w.kernel.Delete(ctx, key)
}

func TestAFrontendNeverCountsASlotThatIsNotThere(t *testing.T) {
	tables := table.New()
	slotKernel, frontKernel := newKernel[bpf.SlotKey, bpf.Backend](), newKernel[table.Frontend, bpf.Service]()
	check := func() {
		for _, s := range frontKernel.rows {
			for slot := range s.Backends {
				if _, ok := slotKernel.rows[bpf.SlotKey{Service: s.ID, Slot: slot}]; !ok {
					t.Fatalf("service %d counts %d backends, slot %d is missing", s.ID, s.Backends, slot)
				}
			}
		}
	}
	n := &node{t: t}
	n.use(tables, OneByOne[bpf.SlotKey, bpf.Backend](watched[bpf.SlotKey, bpf.Backend]{slotKernel, check}),
		OneByOne[table.Frontend, bpf.Service](watched[table.Frontend, bpf.Service]{frontKernel, check}))
	for _, backends := range []uint32{1, 5, 2, 0, 7, 3} {
		n.want(service(backends))
		n.pass(true)
		if len(slotKernel.rows) != int(backends) {
			t.Errorf("%d slots for %d backends", len(slotKernel.rows), backends)
		}
	}
}

func TestARestartWritesOnlyDifferences(t *testing.T) {
	n := newNode(t)
	n.start()
	defer func() { n.stop() }()
	n.want(service(10))
	n.pass(true)

	n.start()
	n.slots.writes, n.front.writes = 0, 0
	n.want(service(10))
	n.pass(true)
	if n.slots.writes+n.front.writes != 0 {
		t.Errorf("an unchanged restart wrote %d slots and %d frontends", n.slots.writes, n.front.writes)
	}

	n.start()
	n.want(service(9))
	n.pass(false)
	if len(n.slots.rows) != 10 {
		t.Errorf("rows were removed before the tables were complete: %d of 10 slots left", len(n.slots.rows))
	}
	n.pass(true)
	if n.slots.writes != 1 || n.front.writes != 1 {
		t.Errorf("one backend less wrote %d slots and %d frontends", n.slots.writes, n.front.writes)
	}
}

// What fills a table may write its last row, and say that the table is complete, while a pass is under way. That row is not one
// that nobody wants.
func TestARowThatComesWithCompletenessStays(t *testing.T) {
	slots, front := service(10)
	for _, piecemeal := range []bool{false, true} {
		n := newNode(t)
		n.start()
		n.want(slots, front)
		n.pass(true)

		n.start()
		n.slots.writes, n.front.writes = 0, 0
		fill := sync.OnceFunc(func() { n.want(slots, front) })
		if piecemeal {
			n.loop = NewLoop(n.tables,
				Follow(n.tables.Slots, OneByOne[bpf.SlotKey, bpf.Backend](n.slots)).PruneBy(removable[bpf.SlotKey](fill)),
				Follow(n.tables.Frontends, OneByOne[table.Frontend, bpf.Service](n.front)).PruneBy(removable[table.Frontend](fill)))
		}
		for range 2 {
			p := n.loop.Pass(t.Context(), n.now, func(string) bool {
				if !piecemeal {
					fill()
				}
				return !piecemeal
			})
			for _, o := range p.Outcomes {
				if o.Removed != 0 || o.Pruned == piecemeal {
					t.Errorf("piecemeal %t: %+v", piecemeal, o)
				}
			}
		}
		if n.slots.writes+n.front.writes != 0 {
			t.Errorf("piecemeal %t: %d slots and %d frontends were written", piecemeal, n.slots.writes, n.front.writes)
		}
		n.stop()
	}
}

func removable[K comparable](fill func()) Removable[K] {
	return func() (uint64, func(K) bool) {
		fill()
		return 1, func(K) bool { return true }
	}
}

func TestAChangeCostsTheChange(t *testing.T) {
	n := newNode(t)
	n.start()
	defer func() { n.stop() }()
	slots, front := service(1000)
	n.want(slots, front)
	n.pass(true)
	n.slots.writes, n.front.writes = 0, 0
	slots[bpf.SlotKey{Service: 1, Slot: 500}] = bpf.Backend{ID: 4711}
	n.want(slots, front)
	n.pass(true)
	if n.slots.writes != 1 || n.front.writes != 0 {
		t.Errorf("one changed backend wrote %d slots and %d frontends", n.slots.writes, n.front.writes)
	}
}

func TestAFailedRowWaitsAndSaysWhy(t *testing.T) {
	n := newNode(t)
	n.start()
	defer func() { n.stop() }()
	broken := true
	n.slots.refuse = func() bool { return broken }
	n.want(service(1))
	p := n.pass(true)
	if p.Failing() != 1 || p.Retry.IsZero() || !p.Retry.After(n.now) {
		t.Errorf("failing %d, retry %v", p.Failing(), p.Retry)
	}
	row, ok := n.tables.Slots.Get(bpf.SlotKey{Service: 1})
	if !ok || row.Status.State != table.Failed || row.Status.Error == "" {
		t.Errorf("row = %+v", row)
	}
	broken = false
	p = n.pass(true)
	if len(n.slots.rows) != 0 {
		t.Error("the row was retried before its time")
	}
	if o := p.Outcomes[0]; o.Failing != 1 || !errors.Is(o.Err, errRefused) {
		t.Errorf("a pass that tries nothing says %d rows wait: %v", o.Failing, o.Err)
	}
	n.now = p.Retry
	if p := n.pass(true); p.Failing() != 0 || p.Outcomes[0].Err != nil || len(n.slots.rows) != 1 {
		t.Errorf("failing %d, slots %v", p.Failing(), n.slots.rows)
	}
}

// A row that waits for another part of the agent is tried soon, however long that takes; one that is refused less and less often.
func TestARowThatWaitsIsTriedSoon(t *testing.T) {
	for _, why := range []error{errRefused, fmt.Errorf("%w: for the test", ErrNotYet)} {
		n := newNode(t)
		n.start()
		tries := 0
		n.pass(true) // reads what is there
		n.slots.refuse, n.slots.why = func() bool { tries++; return true }, why
		n.want(service(1))
		for end := n.now.Add(10 * time.Second); n.now.Before(end); {
			n.now = n.pass(true).Retry
		}
		if tries > 50 != errors.Is(why, ErrNotYet) {
			t.Errorf("%v: tried %d times in 10 s", why, tries)
		}
		n.stop()
	}
}

func TestAHookThatFailsIsAnOutcome(t *testing.T) {
	l := NewLoop(table.New())
	broken := errors.New("broken")
	l.After(Hook{"settings", func(context.Context) error { return broken }})
	always := func(string) bool { return true }
	now := time.Unix(0, 0)
	if p := l.Pass(t.Context(), now, always); p.Failing() != 1 || p.Outcomes[0].Err != broken || p.Retry != now.Add(hookRetry) {
		t.Errorf("pass = %+v", p)
	}
	broken = nil
	if p := l.Pass(t.Context(), now, always); p.Failing() != 0 || !p.Retry.IsZero() {
		t.Errorf("pass = %+v", p)
	}
}

func TestResyncRepairsWhatAStrangerChanged(t *testing.T) {
	n := newNode(t)
	n.start()
	defer func() { n.stop() }()
	n.want(service(3))
	n.pass(true)
	delete(n.slots.rows, bpf.SlotKey{Service: 1, Slot: 1})
	n.slots.rows[bpf.SlotKey{Service: 9, Slot: 9}] = bpf.Backend{ID: 9}
	n.loop.Resync()
	n.pass(true)
	want, _ := service(3)
	if !maps.Equal(n.slots.rows, want) {
		t.Errorf("slots = %v", n.slots.rows)
	}
}
