// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
)

const (
	// every is how often the operator hears of us though nothing changed: counters and handshakes move.
	every = 15 * time.Second
	// settle gathers changes that come together.
	settle = 50 * time.Millisecond
	// pause between two looks at the state, however often it changes.
	pause = 500 * time.Millisecond
	// share of the time, one part in so many, that looks may take.
	share = 50
	// sending is how long one report may take.
	sending = 5 * time.Second
	// starting is how long an agent may take to know itself before it reports what it has.
	starting = 10 * time.Second
)

// Reporter sends reports.
type Reporter struct {
	// Now gives the state.
	Now func() State
	// Send hands it to the operator.
	Send func(context.Context, *relayv1.ReportRequest) error
	Log  *slog.Logger
	// Starting says that the state is not yet worth a report: after a restart it would look as if all was lost.
	Starting func() bool

	begun time.Time
	wakes wakeup.Signal
	last  *relayv1.ReportRequest // what was last sent, by steady; nil: nothing, or it failed
	due   time.Time
	// looked is when the state was last looked at, and took how long that was.
	looked time.Time
	took   time.Duration
}

// NewReporter makes a reporter.
func NewReporter(now func() State, send func(context.Context, *relayv1.ReportRequest) error, log *slog.Logger) *Reporter {
	return &Reporter{Now: now, Send: send, Log: log, wakes: wakeup.New()}
}

// Changed makes the reporter look at the state soon.
func (r *Reporter) Changed() {
	r.wakes.Raise()
}

// Run reports until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	r.begun = time.Now()
	for {
		timer := time.NewTimer(time.Until(r.due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-r.wakes:
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(settle, time.Until(r.looked.Add(max(pause, min(share*r.took, every)))))):
		}
		r.looked = time.Now()
		r.once(ctx, r.looked)
	}
}

func (r *Reporter) once(ctx context.Context, now time.Time) {
	if r.Starting != nil && now.Sub(r.begun) < starting && r.Starting() {
		r.due = now.Add(time.Second)
		return
	}
	request := r.Now().Request()
	lasting := steady(request)
	same := now.Before(r.due) && r.last != nil && proto.Equal(lasting, r.last)
	r.took = time.Since(now)
	if same {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, sending)
	defer cancel()
	if err := r.Send(ctx, request); err != nil {
		if !errors.Is(err, relay.ErrNotConnected) {
			r.Log.Warn("the operator didn't take the report", "error", err)
		}
		r.last, r.due = nil, now.Add(time.Second)
		return
	}
	r.last, r.due = lasting, now.Add(every)
}

// steady is the request without what moves all the time.
func steady(r *relayv1.ReportRequest) *relayv1.ReportRequest {
	out := proto.CloneOf(r)
	out.Drops, out.Applied = nil, nil
	for _, t := range out.Tunnels {
		t.Connected, t.LatestHandshakeUnix = 0, 0
		for _, b := range t.Broken {
			b.LastHandshakeUnix = 0
		}
	}
	return out
}
