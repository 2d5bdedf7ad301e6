// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// repeat holds the flags that every client has.
type repeat struct {
	count    int
	interval time.Duration
	timeout  time.Duration
}

func (r *repeat) register(flags *flag.FlagSet) {
	flags.IntVar(&r.count, "count", 1, "how many requests")
	flags.DurationVar(&r.interval, "interval", 200*time.Millisecond, "pause between requests")
	flags.DurationVar(&r.timeout, "timeout", 3*time.Second, "how long one request may take")
}

// run calls once count times; it goes on after failures and tells at the end how many there were.
func (r *repeat) run(ctx context.Context, once func(context.Context) error) error {
	failures := 0
	for i := range r.count {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(r.interval):
			}
		}
		attempt, cancel := context.WithTimeout(ctx, r.timeout)
		err := once(attempt)
		cancel()
		if err != nil {
			failures++
			fmt.Println(describe(err))
		}
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d requests failed", failures, r.count)
	}
	return nil
}

// describe tells a silent drop from a refusal: a policy's denial must look like the former.
func describe(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		return "TIMEOUT " + err.Error()
	}
	return "ERROR " + err.Error()
}

func oneArgument(flags *flag.FlagSet, args []string) string {
	_ = flags.Parse(args) // ExitOnError
	if flags.NArg() != 1 {
		fmt.Fprintf(os.Stderr, "sample %s: want one argument, have %d\n\n%s", flags.Name(), flags.NArg(), usage)
		os.Exit(2)
	}
	return flags.Arg(0)
}

// call makes HTTP requests, each on a connection of its own, so that each is balanced anew.
func call(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("call", flag.ExitOnError)
	method := flags.String("method", http.MethodGet, "HTTP method")
	body := flags.String("body", "", "request body")
	var again repeat
	again.register(flags)
	url := oneArgument(flags, args)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return again.run(ctx, func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, *method, url, strings.NewReader(*body))
		if err != nil {
			return fmt.Errorf("request %s: %w", url, err)
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
		if err != nil {
			return fmt.Errorf("read answer of %s: %w", url, err)
		}
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answered %s: %s", url, response.Status, strings.TrimSpace(string(answer)))
		}
		fmt.Println(strings.TrimSpace(string(answer)))
		return nil
	})
}

// callUDP sends datagrams from one unconnected socket and wants each echoed from the address it was sent to, as a
// client of a virtual address must see it.
func callUDP(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("udp", flag.ExitOnError)
	var again repeat
	again.register(flags)
	target := oneArgument(flags, args)

	address, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", target, err)
	}
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return fmt.Errorf("open a UDP socket: %w", err)
	}
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	return again.run(ctx, func(ctx context.Context) error {
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return fmt.Errorf("set deadline: %w", err)
		}
		if _, err := conn.WriteToUDP([]byte("ping"), address); err != nil {
			return fmt.Errorf("send to %s: %w", target, err)
		}
		n, from, err := conn.ReadFromUDP(buffer)
		if err != nil {
			return fmt.Errorf("wait for the echo of %s: %w", target, err)
		}
		if !from.IP.Equal(address.IP) || from.Port != address.Port {
			return fmt.Errorf("sent to %s, answered from %s", address, from)
		}
		fmt.Printf("%s from %s\n", buffer[:n], from)
		return nil
	})
}
