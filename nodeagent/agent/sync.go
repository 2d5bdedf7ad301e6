// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply"
	applypolicy "github.com/fairlead-mesh/fairlead/nodeagent/apply/policy"
	"github.com/fairlead-mesh/fairlead/nodeagent/intake"
	"github.com/fairlead-mesh/fairlead/nodeagent/plan"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
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

	inForce bool // policy was, as planned, at least once
	// Of the records that were planned last.
	complete        *intake.Completeness
	completeVersion uint64
}

// Synced returns how far the kernel is.
func (a *Agent) Synced() Synced {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced
}

// planned says that the desired rows of this cluster are all there, so that what they don't want is not wanted. What the
// records became complete of since the last plan doesn't count: the rows of the last batch are not among the desired ones yet.
func (a *Agent) planned() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.synced.Planned && a.synced.complete.Own()
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
		watch := append(pass.Watch, a.wakes)
		if a.planner != nil {
			watch = append(watch, a.planner.Watch())
		}
		if err := apply.Wait(ctx, until, watch...); err != nil {
			return err
		}
		if now := time.Now(); !now.Before(resync) {
			a.loop.Resync()
			resync = now.Add(resyncEvery)
		}
	}
}

// Sync plans what changed and brings it to the maps: one round.
func (a *Agent) Sync(ctx context.Context, now time.Time) (apply.Pass, error) {
	position := report.PositionOf(a.Intake.Position())
	a.look()
	if err := a.plan(ctx); err != nil {
		return apply.Pass{}, err
	}
	pass := a.loop.Pass(ctx, now, a.mayPrune)
	if a.planner == nil {
		return pass, nil
	}
	retry := func(at time.Time) {
		if pass.Retry.IsZero() || at.Before(pass.Retry) {
			pass.Retry = at
		}
	}
	sockets := a.startUp()
	if sockets != nil {
		retry(now.Add(time.Second))
	}
	if a.publisher.Step() || a.publisher.Ready() && a.planner.Waiting() {
		retry(now.Add(time.Nanosecond)) // the next part of the policy's change, or the next change
	}
	if err := a.settle(); err != nil {
		a.log.Error("the new maps can't be pinned; a restart would start from scratch", "error", err)
		retry(now.Add(time.Second))
	}
	a.record(position, pass, sockets)
	a.releaseIndexes(pass)
	a.releaseMemory()
	if a.foundFor != a.completeVersion {
		a.foundFor = a.completeVersion
		a.finder.Look()
	}
	a.changed()
	return pass, nil
}

// plan makes the planner as soon as there is something whole to plan, with what the kernel remembers, and lets it work.
func (a *Agent) plan(ctx context.Context) error {
	cluster := a.Intake.Cluster()
	if a.planner != nil && cluster != a.cluster {
		// The disk was another cluster's. Everything planned from it is wrong, and a new start is the one way that is
		// well tried.
		return fmt.Errorf("this node belongs to cluster %s and not to %s, as its disk says: starting anew", cluster, a.cluster)
	}
	if a.planner == nil {
		if cluster == "" || !a.Intake.Usable() {
			return nil
		}
		memory, held, err := a.memory(ctx)
		if err != nil {
			return err
		}
		a.planner = plan.New(plan.Config{
			Cluster: cluster, Node: a.cfg.Node, OwnCNI: a.cfg.OwnCNI, SkipServices: a.cfg.SkipServices, Limits: a.policyLimits(),
		}, a.Tables, memory)
		a.cluster, a.planning = cluster, time.Now()
		a.publisher = applypolicy.NewPublisher(a.Tables, a.policy, held)
		a.log.Info("planning", "cluster", cluster, "node", a.cfg.Node)
	}
	if d := a.planner.Step(a.publisher.Ready(), a.ownPodsKnown()); d != nil {
		a.publisher.Publish(applypolicy.FromDelta(d, a.held))
	} else {
		a.publisher.Step()
	}
	return nil
}

// policyInForce says that every change of policy that was planned is in force.
func (a *Agent) policyInForce() bool { return a.publisher.Ready() && !a.planner.Waiting() }

// startUp attaches to sockets once the maps are filled. It returns why they are not attached.
func (a *Agent) startUp() error {
	if s := a.Synced(); a.drivers.AttachSockets != nil && (!s.Planned || s.Sockets != nil) {
		return a.drivers.AttachSockets()
	}
	return nil
}

// settle has the new maps pinned, once. They are pinned when every program uses them, not when every row fits: a restart
// must find the maps that the programs use.
func (a *Agent) settle() error {
	if a.Synced().Settled || !a.attached() || !a.policyInForce() {
		return nil
	}
	if a.drivers.Settle != nil {
		if err := a.drivers.Settle(); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.policy.ProgramsChanged()
	a.wake()
	a.synced.Settled = true
	a.mu.Unlock()
	return nil
}

// attached says that every program that is wanted is attached. Hooks are wanted once the finder has looked for the pods, and
// the tunnel is open.
func (a *Agent) attached() bool {
	looked := a.finder.Looked() && (!a.encrypts() || a.wireguard.Status().Device != nil)
	if !looked || a.Tables.Hooks.Len() == 0 {
		return false
	}
	for row := range a.Tables.Hooks.All() {
		if row.Status.State != table.Done {
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
	policies := a.planner.Policies()
	if len(failing) > 0 {
		policies = maps.Clone(policies)
		a.blame(policies)
	}
	inForce := a.policyInForce()
	done := len(failing) == 0 && inForce
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.synced
	if !s.Planned || s.completeVersion != a.completeVersion {
		a.wireguard.Wake() // it asks planned and removablePeers
	}
	s.Planned, s.complete, s.completeVersion = true, a.complete, a.completeVersion
	s.Sockets, s.Failing, s.Problems = sockets, failing, a.planner.Problems()
	if inForce {
		s.Policies, s.inForce = policies, true
	} else {
		s.Policies = notYet(s.Policies, policies, a.hindered(pass))
	}
	if done {
		s.Applied = position
	}
}

// hindered says why the switch of policy can't be made; nil: it only wasn't yet.
func (a *Agent) hindered(pass apply.Pass) error {
	for _, o := range pass.Outcomes {
		if o.Step == a.Tables.Subjects.Name() {
			return o.Err
		}
	}
	return nil
}

// notYet are the policies in force while those planned are not. Those that differ have the reason, if there is one.
func notYet(inForce, planned map[string]plan.Policy, why error) map[string]plan.Policy {
	if why == nil {
		return inForce
	}
	out := maps.Clone(inForce)
	if out == nil {
		out = map[string]plan.Policy{}
	}
	for key, p := range planned {
		if p != inForce[key] {
			p.Problem = why.Error()
			out[key] = p
		}
	}
	return out
}

// maxBlamed bounds how many closed subjects are looked at for the policies that they are closed by.
const maxBlamed = 64

// blame gives policies with rules that closed subjects have the reason why they are not in force. Where there are too many to
// look at, no policy is said to be: a report of success must be true.
func (a *Agent) blame(policies map[string]plan.Policy) {
	t := a.Tables
	prefix := a.Intake.Cluster() + "/" + record.KindPolicy + "/"
	closed := t.Subjects.FailedRows(maxBlamed + 1)
	if len(closed) > maxBlamed {
		closed = closed[:maxBlamed]
		for key, p := range policies {
			if p.Problem == "" {
				p.Problem = fmt.Sprintf("more than %d kinds of pods are closed, maybe by this policy too: %s", maxBlamed, closed[0].Status.Error)
				policies[key] = p
			}
		}
	}
	for _, row := range closed {
		for from := uint32(0); from < row.Value.Lines; from += bpf.GroupLines {
			chunk, _ := t.Groups.Get(bpf.GroupKey{Group: row.Value.Group, Chunk: from / bpf.GroupLines})
			for _, line := range chunk.Value.Line {
				rule, ok := t.Rules.Get(line.RuleID)
				if !ok {
					continue
				}
				if p, ok := policies[prefix+rule.Value.Policy]; ok {
					p.Problem = row.Status.Error
					policies[p.Key] = p
				}
			}
		}
	}
}
