// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

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
	return planned && a.Intake.Completeness().All()
}

func (a *Agent) syncLoop(ctx context.Context) error {
	resync := time.Now().Add(resyncEvery)
	for {
		pass, err := a.Sync(ctx, time.Now())
		if err != nil {
			return err
		}
		until := resync
		if !pass.Retry.IsZero() && pass.Retry.Before(until) {
			until = pass.Retry
		}
		if err := a.sleep(ctx, until, pass); err != nil {
			return err
		}
		if now := time.Now(); !now.Before(resync) {
			a.loop.Resync()
			resync = now.Add(resyncEvery)
		}
	}
}

// sleep until there is something to do. Tables tell by closing channels, the intake by a message.
func (a *Agent) sleep(ctx context.Context, until time.Time, pass apply.Pass) error {
	woken, cancel := context.WithCancel(ctx)
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		defer cancel()
		select {
		case <-a.wakes:
		case <-woken.Done():
		}
	}()
	watch := pass.Watch
	if a.planner != nil {
		watch = append(watch, a.planner.Sources()...)
	}
	err := apply.Wait(woken, until, watch...)
	cancel()
	<-taken // a message taken later than this would be lost
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
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
	if m.Addresses, err = a.doors.Routes.Addresses.Have(ctx); err != nil {
		return m, err
	}
	if m.Ranges, err = a.doors.Routes.Ranges.Have(ctx); err != nil {
		return m, err
	}
	m.Frontends, err = a.doors.Services.Frontends.Have(ctx)
	return m, err
}

// complete says of a step whether its table holds everything. Tables that others fill than the planner must have been
// filled by them: a restart must not detach a pod whose interface is still being looked for, nor a tunnel that is not
// open yet.
func (a *Agent) complete(step string) bool {
	if a.planner == nil || !a.Intake.Completeness().All() {
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
	for row := range a.Tables.Settings.All(a.Tables.DB.ReadTxn()) {
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
	if !s.Settled && pass.Failing() == 0 && a.doors.Settle != nil {
		if err := a.doors.Settle(); err != nil {
			a.log.Error("the new maps can't be pinned; a restart would start from scratch", "error", err)
		}
	}
	return err
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
	s.Settled = s.Settled || len(failing) == 0
	s.Sockets, s.Failing, s.Problems = sockets, failing, a.planner.Problems()
	s.Policies = policies
	if len(failing) == 0 {
		s.Applied = position
	}
}

// blame tells a policy whose entries the kernel refuses.
func (a *Agent) blame(policies map[string]plan.Policy) {
	t := a.Tables
	txn := t.DB.ReadTxn()
	for _, row := range failedEntries(t, txn) {
		rule, ok := t.Rules.Get(txn, row.Value.RuleID)
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
