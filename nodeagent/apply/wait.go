// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"errors"
	"time"

	"github.com/cilium/statedb"
)

// Wait returns when one of the channels closes, at the given time (zero: never), or with ctx's error.
func Wait(ctx context.Context, until time.Time, channels ...<-chan struct{}) error {
	timed := ctx
	if !until.IsZero() {
		var cancel context.CancelFunc
		timed, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	set := statedb.NewWatchSet()
	set.Add(channels...)
	_, err := set.Wait(timed, 0)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
