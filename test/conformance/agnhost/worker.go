// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// order is a batch, and how many seconds a connection may take.
type order struct {
	Seconds int
	Batch   batch
}

// batch is what Cyclonus gives its worker in a pod.
type batch struct {
	Requests []request
}

// request is a connection to try.
type request struct {
	Key      string
	Protocol string
	Host     string
	Port     uint16
}

// tried is what came of it. Error is empty if somebody answered.
type tried struct {
	Request request
	Output  string
	Error   string
}

// tries is how often Cyclonus' own worker tries a connection.
const tries = 2

// work stands in for Cyclonus' worker: that starts a process for each connection, this tries all of a batch at once. A line is an
// order, and its answer is one.
func work(in io.Reader, out io.Writer) error {
	for r := bufio.NewReader(in); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			return fmt.Errorf("read an order: %w", err)
		}
		if o.Seconds <= 0 {
			return fmt.Errorf("an order of connections that may take %d seconds", o.Seconds)
		}
		if err := json.NewEncoder(out).Encode(o.Batch.try(time.Duration(o.Seconds) * time.Second)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (b batch) try(timeout time.Duration) []tried {
	hosts := map[string]func() (netip.Addr, error){} // each name is asked for once a batch
	for _, r := range b.Requests {
		if hosts[r.Host] == nil {
			hosts[r.Host] = sync.OnceValues(func() (netip.Addr, error) { return lookup(r.Host, timeout) })
		}
	}
	all := make([]tried, len(b.Requests))
	var wg sync.WaitGroup
	for i, r := range b.Requests {
		wg.Go(func() {
			all[i].Request = r
			addr, err := hosts[r.Host]()
			for n := 0; n < tries && (n == 0 || err != nil) && addr.IsValid(); n++ {
				err = r.try(netip.AddrPortFrom(addr, r.Port).String(), timeout)
			}
			if err != nil {
				all[i].Error = err.Error()
			}
		})
	}
	wg.Wait()
	return all
}

// lookup prefers IPv4, as the original does. It may take longer than a connection: all pods ask for all names at once.
func lookup(host string, timeout time.Duration) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*timeout)
	defer cancel()
	// The names are whole: search domains would only be asked in vain, five times each.
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", strings.TrimSuffix(host, ".")+".")
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find %s: %w", host, err)
	}
	for _, a := range addrs {
		if a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return addrs[0], nil
}

// try says why nobody answered. It does what the original's connect does.
func (r request) try(target string, timeout time.Duration) error {
	switch r.Protocol {
	case "TCP":
		conn, err := net.DialTimeout("tcp", target, timeout)
		if err != nil {
			return err
		}
		return conn.Close()
	case "UDP":
		return ask(target, timeout)
	case "SCTP":
		if hasSCTP() {
			return exec.Command(original, "connect", target, "--protocol=sctp", "--timeout="+timeout.String()).Run()
		}
		answered, err := connect(target, timeout)
		if err == nil && !answered {
			err = errors.New("timeout")
		}
		return err
	}
	return fmt.Errorf("protocol %q is unknown", r.Protocol)
}

func ask(target string, timeout time.Duration) error {
	conn, err := net.Dial("udp", target)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		return err
	}
	n, err := conn.Read(make([]byte, 1024))
	if err == nil && n == 0 {
		err = errors.New("the answer is empty")
	}
	return err
}
