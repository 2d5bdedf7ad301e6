// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/report"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// AgentConfig of a node agent. It is to run in a network namespace of its own.
type AgentConfig struct {
	Node    string
	Address netip.Addr   // the node's
	Pods    []netip.Addr // on the node
	Dir     string       // for what the agent keeps on disk
	Pins    string       // in a BPF file system
	Sizes   map[string]uint32
	Relay   RelayFiles
}

// AgentState is what the agent says of itself, and what went over its connections.
type AgentState struct {
	Received, Sent int64 // bytes, TLS included
	Dials          int64 // connections made
	FirstDial      time.Time
	Applied        report.Position
	Problems       []string
	Pending        int // rows that the kernel doesn't hold yet
}

// Applied names a place in the relay's stream.
type Applied struct {
	Epoch    string
	Revision uint64
	Limit    time.Duration
}

type agentRole struct {
	cfg    AgentConfig
	log    *slog.Logger
	wire   wire
	agent  *agent.Agent
	path   *datapath.Datapath
	dialed time.Time
	ended  chan error
}

func serveAgent(log *slog.Logger) error {
	agent.LimitHeap()
	a := &agentRole{log: log, ended: make(chan error, 1)}
	return process.Serve(process.Handlers{
		"start":   process.Call(func(cfg AgentConfig) (None, error) { a.cfg = cfg; return None{}, a.start() }),
		"state":   process.Call(func(None) (AgentState, error) { return a.state(), nil }),
		"applied": process.Call(a.applied),
		"heap":    process.Call(heap),
	})
}

func (a *agentRole) start() error {
	node, err := newNode(a.cfg)
	if err != nil {
		return err
	}
	a.path, err = datapath.Open(datapath.Config{Dir: a.cfg.Pins, Sizes: a.cfg.Sizes, Log: a.log.With("part", "datapath")})
	if err != nil {
		return fmt.Errorf("open the datapath: %w", err)
	}
	drivers := agent.OfDatapath(a.path, "")
	drivers.Links = node
	drivers.OpenWireGuard = node.openWireGuard
	c, err := client(a.cfg.Relay, a.cfg.Node, &a.wire, a.log.With("part", "relay"))
	if err != nil {
		return err
	}
	a.agent = agent.New(agent.Config{
		Node: a.cfg.Node, Version: "scale", Snapshot: filepath.Join(a.cfg.Dir, "snapshot"), RelayTimeout: 5 * time.Second,
		EventsPerTick: 1000, Log: a.log,
	}, drivers, c)
	go a.run()
	return nil
}

func (a *agentRole) run() {
	a.dialed = time.Now()
	err := a.agent.Run(context.Background(), "")
	a.log.Error("agent ended", "error", err)
	a.ended <- err
}

func (a *agentRole) state() AgentState {
	s := a.agent.State()
	out := AgentState{
		Received: a.wire.received.Load(), Sent: a.wire.sent.Load(), Dials: a.wire.dials.Load(), FirstDial: a.dialed, Applied: s.Applied,
	}
	for _, p := range s.Problems {
		out.Problems = append(out.Problems, p.Code+": "+p.Message)
	}
	for _, t := range s.Tables {
		out.Pending += t.Pending + t.Failed
	}
	return out
}

// applied waits until the kernel holds what the relay had sent up to a revision.
func (a *agentRole) applied(want Applied) (time.Time, error) {
	for deadline := time.Now().Add(want.Limit); ; time.Sleep(time.Millisecond) {
		at := a.agent.Synced().Applied
		if at.Epoch == want.Epoch && at.Revision >= want.Revision {
			return time.Now(), nil
		}
		select {
		case err := <-a.ended:
			return time.Time{}, fmt.Errorf("the agent ended: %w", err)
		default:
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("applied %+v of %+v within %s", at, want, want.Limit)
		}
	}
}
