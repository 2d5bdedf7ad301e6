// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	"github.com/fairlead-mesh/fairlead/nodeagent/plan"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
)

// Synced is how far the kernel is.
type Synced struct {
	Applied  report.Position
	Policies map[string]plan.Policy // as enforced; Problem says what hinders
	Problems []string               // of the plan
	Failing  []apply.Outcome        // steps with rows that wait
	Sockets  error                  // why services are not translated
	Planned  bool
	Settled  bool
}

// Synced tells how far the kernel is.
func (a *Agent) Synced() Synced {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced
}

// planned says that the desired rows are all there, so that what they don't want is not wanted.
func (a *Agent) planned() bool {
	a.mu.Lock()
	planned := a.synced.Planned
	a.mu.Unlock()
	return planned && a.Intake.Complete()
}

func (a *Agent) syncLoop(ctx context.Context) error {
	resync := time.Now().Add(resyncEvery)
	for {
		woken := a.wakes.channel()
		pass, err := a.Sync(ctx, time.Now())
		if err != nil {
			return err
		}
		until := resync
		if !pass.Retry.IsZero() && pass.Retry.Before(until) {
			until = pass.Retry
		}
		if err := a.sleep(ctx, until, woken, pass); err != nil {
			return err
		}
		if now := time.Now(); !now.Before(resync) {
			a.loop.Resync()
			resync = now.Add(resyncEvery)
		}
	}
}

// sleep until there is something to do.
func (a *Agent) sleep(ctx context.Context, until time.Time, woken <-chan struct{}, pass apply.Pass) error {
	watch := append(pass.Watch, woken)
	if a.planner != nil {
		watch = append(watch, a.planner.Sources()...)
	}
	return apply.Wait(ctx, until, watch...)
}

// Sync plans what changed and brings it to the maps: one round.
func (a *Agent) Sync(ctx context.Context, now time.Time) (apply.Pass, error) {
	position := report.PositionOf(a.Intake.Position())
	if err := a.plan(ctx); err != nil {
		return apply.Pass{}, err
	}
	pass, err := a.loop.Pass(ctx, now, a.complete)
	if err != nil {
		return pass, fmt.Errorf("bringing rows to the maps: %w", err)
	}
	if a.planner == nil {
		return pass, nil
	}
	sockets := a.startUp(pass)
	if sockets != nil && (pass.Retry.IsZero() || now.Add(time.Second).Before(pass.Retry)) {
		pass.Retry = now.Add(time.Second)
	}
	a.record(position, pass, sockets)
	a.changed()
	return pass, nil
}

// plan makes the planner as soon as there is something whole to plan, with what the kernel remembers, and lets it work.
func (a *Agent) plan(ctx context.Context) error {
	if a.planner == nil {
		cluster := a.Intake.Cluster()
		if cluster == "" || !a.Intake.Usable() {
			return nil
		}
		memory, err := a.memory(ctx)
		if err != nil {
			return err
		}
		a.planner, err = plan.New(plan.Config{
			Cluster: cluster, Node: a.cfg.Node, OwnCNI: a.cfg.OwnCNI, SkipServices: a.cfg.SkipServices,
		}, a.Tables, memory)
		if err != nil {
			return err
		}
		a.log.Info("planning", "cluster", cluster, "node", a.cfg.Node)
	}
	_, err := a.planner.Step()
	return err
}

func (a *Agent) memory(ctx context.Context) (m plan.Memory, err error) {
	if m.Addresses, err = apply.All(ctx, a.doors.Routes.Addresses); err != nil {
		return m, err
	}
	if m.Ranges, err = apply.All(ctx, a.doors.Routes.Ranges); err != nil {
		return m, err
	}
	m.Frontends, err = apply.All(ctx, a.doors.Services.Frontends)
	return m, err
}

// complete says of a step whether its table holds everything. Tables that others fill than the planner must have been
// filled by them: a restart must not detach a pod whose interface is still being looked for, nor a tunnel that is not
// open yet.
func (a *Agent) complete(step string) bool {
	if a.planner == nil || !a.Intake.Complete() {
		return false
	}
	t := a.Tables
	switch step {
	case t.Ifaces.Name(), t.Locals.Name(), t.Addresses.Name():
		return a.finder.Synced() // it also knows the node's own addresses
	case t.Hooks.Name():
		return a.finder.Synced() && a.tunnelSynced()
	case t.PeerFlags.Name():
		return a.tunnelSynced()
	}
	return true
}

func (a *Agent) tunnelSynced() bool {
	for row := range a.Tables.Settings.All() {
		if !row.Value.Encryption {
			return true
		}
	}
	return a.wireguard.Status().Synced
}

// startUp does what waits for the maps to be filled once. It returns why sockets are not attached.
func (a *Agent) startUp(pass apply.Pass) error {
	s := a.Synced()
	var err error
	if a.doors.AttachSockets != nil && (!s.Planned || s.Sockets != nil) {
		err = a.doors.AttachSockets()
	}
	// The new maps are pinned when every program uses them, not when every row fits: a restart must find the maps that
	// the programs use.
	if !s.Settled && hooksAttached(pass, a.Tables.Hooks.Name()) && a.doors.Settle != nil {
		if err := a.doors.Settle(); err != nil {
			a.log.Error("the new maps can't be pinned; a restart would start from scratch", "error", err)
		}
	}
	return err
}

func hooksAttached(pass apply.Pass, hooks string) bool {
	for _, o := range pass.Outcomes {
		if o.Step == hooks && (o.Failing > 0 || o.Err != nil) {
			return false
		}
	}
	return true
}

// record remembers what the kernel holds now.
func (a *Agent) record(position report.Position, pass apply.Pass, sockets error) {
	var failing []apply.Outcome
	for _, o := range pass.Outcomes {
		if o.Failing > 0 || o.Err != nil {
			failing = append(failing, o)
		}
	}
	policies := maps.Clone(a.planner.Policies())
	if len(failing) > 0 {
		a.blame(policies)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.synced
	s.Planned = true
	s.Settled = s.Settled || hooksAttached(pass, a.Tables.Hooks.Name())
	s.Sockets, s.Failing, s.Problems = sockets, failing, a.planner.Problems()
	s.Policies = policies
	if len(failing) == 0 {
		s.Applied = position
	}
}

// maxBlamed bounds how many closed pods are looked at for the policies they are closed by.
const maxBlamed = 64

// blame says of the policies whose rules closed subjects have why they are not in force.
func (a *Agent) blame(policies map[string]plan.Policy) {
	t := a.Tables
	for _, row := range t.Subjects.FailedRows(maxBlamed) {
		for from := uint32(0); from < row.Value.Lines; from += bpf.GroupLines {
			chunk, _ := t.Groups.Get(bpf.GroupKey{Group: row.Value.Group, Chunk: from / bpf.GroupLines})
			for _, l := range chunk.Value.Line {
				rule, ok := t.Rules.Get(l.RuleID)
				if !ok {
					continue
				}
				key := a.Intake.Cluster() + "/policies/" + rule.Value.Policy
				if p, ok := policies[key]; ok {
					p.Problem = row.Status.Error
					policies[key] = p
				}
			}
		}
	}
}
