// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
)

// measureRestarts restarts one part after the other while clusters change. A part is down for two seconds.
func (s *Size) measureRestarts(r *rig, c *churn) error {
	stop := c.start(scaleTestRates)
	defer stop()
	const down = 2 * time.Second
	for _, part := range []struct {
		name     string
		into     *Restart
		end      func() error
		begin    func() error
		newAgent bool // its counters begin at zero
	}{
		{
			"store", &s.RestartStore,
			func() error { return r.store.Call("stop", roles.None{}, nil) },
			func() error { return r.store.Call("up", roles.None{}, nil) }, false,
		},
		{"operator", &s.RestartOperator, func() error { r.operator.Kill(); return nil }, r.startOperator, false},
		{"agent", &s.RestartAgent, func() error { r.agent.Kill(); return nil }, r.startAgent, true},
	} {
		r.say("restart of the %s", part.name)
		time.Sleep(2 * settled) // what the part before upset is on the disk
		before, err := r.read()
		if err != nil {
			return err
		}
		if part.into == &s.RestartOperator {
			before.operatorIO.Read = 0
		}
		if part.newAgent {
			before.state.Received = 0
		}
		if err := part.end(); err != nil {
			return err
		}
		time.Sleep(down)
		type arrival struct {
			from netip.Addr
			err  error
		}
		arrives, asked := make(chan arrival, 1), make(chan struct{})
		go func() { // a change made while the part is down
			close(asked)
			_, from, err := c.move(limit)
			arrives <- arrival{from, err}
		}()
		<-asked
		begin := time.Now()
		if err := part.begin(); err != nil {
			return err
		}
		there := <-arrives
		if there.err != nil {
			return there.err
		}
		part.into.CaughtUp = ms(time.Since(begin))
		if _, err := r.kernel.awaitAddress(there.from, 0, limit); err != nil {
			return err
		}
		part.into.Pruned = ms(time.Since(begin))
		after, err := r.read()
		if err != nil {
			return err
		}
		part.into.OperatorRead = after.operatorIO.Read - before.operatorIO.Read
		part.into.AgentRead = after.state.Received - before.state.Received
	}
	return nil
}
