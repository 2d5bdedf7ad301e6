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
	"strconv"
	"strings"
	"time"
)

// streamReport sums up a stream: what the demo and the tests assert on.
type streamReport struct {
	Sent     int     `json:"sent"`
	Echoed   int     `json:"echoed"`
	LongestS float64 `json:"longestGapSeconds"`
	Broken   string  `json:"broken,omitempty"`
}

// stream holds one TCP connection for a time, sends a numbered line each interval and wants each back in order. The
// connection must never be made anew: if it breaks, that is the result.
func stream(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("stream", flag.ExitOnError)
	interval := flags.Duration("interval", 50*time.Millisecond, "pause between lines")
	duration := flags.Duration("duration", 10*time.Second, "how long the stream lasts (0: until SIGTERM)")
	patience := flags.Duration("patience", 30*time.Second, "a silence this long counts as broken")
	output := flags.String("output", "", "also write the report to this file")
	target := oneArgument(flags, args)

	if *duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *duration)
		defer cancel()
	}
	conn, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", target, err)
	}
	defer conn.Close()
	fmt.Printf("connected to %s\n", target)

	report := exchange(ctx, conn, *interval, *patience)
	encoded, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode report: %w", err)
	}
	fmt.Println(string(encoded))
	if *output != "" {
		if err := os.WriteFile(*output, encoded, 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	if report.Broken != "" {
		return fmt.Errorf("stream to %s broke: %s", target, report.Broken)
	}
	return nil
}

func exchange(ctx context.Context, conn net.Conn, interval, patience time.Duration) streamReport {
	var report streamReport
	lines := bufio.NewReader(conn)
	last := time.Now()
	for ctx.Err() == nil {
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			report.Broken = err.Error()
			return report
		}
		if _, err := fmt.Fprintf(conn, "%d\n", report.Sent); err != nil {
			report.Broken = fmt.Sprintf("send line %d: %v", report.Sent, err)
			return report
		}
		report.Sent++
		line, err := lines.ReadString('\n')
		if err != nil {
			report.Broken = fmt.Sprintf("wait for line %d: %v", report.Echoed, err)
			return report
		}
		if number, err := strconv.Atoi(strings.TrimSpace(line)); err != nil || number != report.Echoed {
			report.Broken = fmt.Sprintf("wanted line %d back, got %q", report.Echoed, line)
			return report
		}
		report.Echoed++
		report.LongestS = max(report.LongestS, time.Since(last).Seconds())
		last = time.Now()
		select {
		case <-ctx.Done():
		case <-time.After(interval):
		}
	}
	return report
}
