// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Attacker is the program of all pods of test/evade: it tries to get around network policy, and is what is attacked.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  attacker listen [-tcp PORTS] [-udp PORTS] [-frames=BOOL]   answer, and note which tokens arrive
  attacker try < JOBS                                        try techniques; jobs and results are lines of JSON
  attacker hold [flags] ADDRESS:PORT                         keep a connection, and tell what became of it
  attacker seen                                              what arrived here
  attacker self                                              what this pod knows of its network
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	verbs := map[string]func(context.Context, []string) error{
		"listen": listen, "try": try, "hold": hold, "seen": seen, "self": showSelf,
	}
	verb, ok := verbs[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "attacker: unknown command %q\n\n%s", os.Args[1], usage)
		os.Exit(2)
	}
	if err := verb(ctx, os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func seen(ctx context.Context, _ []string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+diary, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", diary, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask what was seen: %w", err)
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func showSelf(context.Context, []string) error {
	s, err := self()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(s)
}
