// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/fairlead-mesh/fairlead/test/evade/job"
)

const (
	beat  = 100 * time.Millisecond
	stale = 3 * time.Second // a line that isn't echoed for so long makes a connection broken
)

// hold keeps a connection for a time and sends lines with the token, and opens new ones beside it. It says when it is connected, and
// at the end what became of it.
func hold(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("hold", flag.ExitOnError)
	duration := flags.Duration("for", 5*time.Second, "how long")
	port := flags.Int("port", 0, "the own port")
	token := flags.String("token", "", "what to send")
	fresh := flags.Bool("fresh", false, "open new connections, too")
	silent := flags.Duration("patience", stale, "how long an echo may take")
	_ = flags.Parse(args) // ExitOnError

	end := time.Now().Add(*duration)
	var h holding
	d := net.Dialer{Timeout: stale, LocalAddr: &net.TCPAddr{Port: *port}}
	c, err := d.DialContext(ctx, "tcp", flags.Arg(0))
	if err != nil {
		h.Broken = err.Error()
		return json.NewEncoder(os.Stdout).Encode(h.Hold)
	}
	defer c.Close()
	h.Connected = true
	if a, ok := c.LocalAddr().(*net.TCPAddr); ok {
		h.Port = a.Port
	}
	if err := json.NewEncoder(os.Stdout).Encode(h.Hold); err != nil {
		return err
	}
	done := make(chan struct{})
	if *fresh {
		go func() { defer close(done); h.Fresh, h.Failed = knock(ctx, flags.Arg(0), *token, end) }()
	} else {
		close(done)
	}
	h.talk(c, *token, end, *silent)
	<-done
	return json.NewEncoder(os.Stdout).Encode(h.Hold)
}

// holding is a Hold that is being made.
type holding struct{ job.Hold }

// talk sends a line each beat until the end, and waits for each.
func (h *holding) talk(c net.Conn, token string, end time.Time, patience time.Duration) {
	lines := bufio.NewReader(c)
	last := time.Now()
	for time.Now().Before(end) {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := fmt.Fprintln(c, token); err != nil {
			h.Broken = err.Error()
			return
		}
		if _, err := lines.ReadString('\n'); err != nil {
			h.Broken = err.Error()
			h.LongestGap = max(h.LongestGap, time.Since(last))
			return
		}
		h.Echoed++
		h.LastEcho = time.Now()
		h.LongestGap = max(h.LongestGap, time.Since(last))
		last = time.Now()
		time.Sleep(beat)
	}
}

// knock opens new connections until the end, one after the other.
func knock(ctx context.Context, target, token string, end time.Time) (answered, failed int) {
	d := net.Dialer{Timeout: 2 * time.Second}
	for time.Now().Before(end) && ctx.Err() == nil {
		if once(ctx, d, target, token) {
			answered++
		} else {
			failed++
		}
		time.Sleep(3 * beat)
	}
	return answered, failed
}

func once(ctx context.Context, d net.Dialer, target, token string) bool {
	c, err := d.DialContext(ctx, "tcp", target)
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := fmt.Fprintln(c, token); err != nil {
		return false
	}
	_, err = bufio.NewReader(c).ReadString('\n')
	return err == nil
}
