// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package apply

import (
	"context"
	"reflect"
	"time"
)

// Wait returns when one of the channels closes or has a message, which it takes, at the given time (zero: never), or with
// ctx's error.
func Wait(ctx context.Context, until time.Time, channels ...<-chan struct{}) error {
	cases := make([]reflect.SelectCase, 0, len(channels)+2)
	add := func(c any) {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)})
	}
	add(ctx.Done())
	for _, c := range channels {
		add(c)
	}
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		add(timer.C)
	}
	reflect.Select(cases)
	return ctx.Err()
}
