// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/fairlead-mesh/fairlead/mesh/record"
)

// ErrFenced ends a Publisher's Run when another leader of the same cluster has taken over. The process should give up
// its leadership: only one may write.
var ErrFenced = errors.New("another leader of this cluster publishes now")

// Publisher makes the cluster's prefix in the store equal to what is desired.
type Publisher struct{}

// PublishStatus tells how publishing goes.
type PublishStatus struct {
	Reachable   bool      // the last exchange with the store succeeded
	Synced      bool      // the store holds what is desired
	Published   int       // records of ours in the store
	Pending     int       // puts and deletes still to be done
	LastSuccess time.Time // when the store last answered as it should
	LastError   error     // of the last failure, nil once an exchange succeeded again
}

// NewPublisher makes a Publisher for a cluster. It writes nothing until it was given a desired set.
func NewPublisher(cluster string, log *slog.Logger) *Publisher { return &Publisher{} }

// SetDesired replaces what is desired. The set is the Publisher's from then on. Until the first call nothing is
// published or deleted, so call it only when the set is complete.
func (p *Publisher) SetDesired(set record.Set) {}

// Apply changes what is desired. It does nothing before the first SetDesired.
func (p *Publisher) Apply(d record.Delta) {}

// Status tells how publishing goes. Changed is closed and renewed whenever Status may have changed.
func (p *Publisher) Status() PublishStatus { return PublishStatus{} }

// Run publishes until ctx ends (it returns ctx's error) or another leader takes over (ErrFenced). Call it only as the
// cluster's leader: it takes over from a former one. All other failures are retried. Run may be called again, with
// another Store, once it has returned.
func (p *Publisher) Run(ctx context.Context, s *Store) error { return nil }
