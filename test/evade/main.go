// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Evade lets pods of the demo's clusters attack others that network policy protects, and writes what came of it to
// docs/conformance/evade.md. It fails if anything got through, or if what policy allows doesn't.
//
//	go run ./test/evade [-instance demo] [-clusters east,west] [-run REGEXP]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

const page = "docs/conformance/evade.md"

func main() {
	instance := flag.String("instance", "demo", "the lab's instance")
	clusters := flag.String("clusters", "east,west", "where attackers are let loose")
	run := flag.String("run", "", "only attacks whose name matches this regular expression; no report is written then")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := evade(ctx, *instance, strings.Split(*clusters, ","), *run); err != nil {
		fmt.Fprintln(os.Stderr, "evade:", err)
		os.Exit(1)
	}
}

func evade(ctx context.Context, instance string, home []string, run string) (err error) {
	s := &suite{home: home, report: newReport(), shots: map[*place][]*shot{}}
	if run != "" {
		if s.match, err = regexp.Compile(run); err != nil {
			return fmt.Errorf("-run: %w", err)
		}
	}
	for _, a := range attacks() {
		if s.wanted(a.name) {
			s.attacks = append(s.attacks, a)
		}
	}
	tools, err := toolchain.Find()
	if err != nil {
		return err
	}
	if err := loadImage(ctx, instance); err != nil {
		return err
	}
	var both []cluster
	for _, name := range []string{"east", "west"} {
		c, err := findCluster(ctx, instance, name, tools.Program("kubectl"))
		if err != nil {
			return err
		}
		both = append(both, c)
	}
	defer func() {
		// Also after an interrupt; and pods of attackers shall not stay.
		ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
		defer cancel()
		for _, c := range both {
			err = errors.Join(err, tearDown(ctx, c))
		}
	}()
	for _, c := range both {
		if err := tearDown(ctx, c); err != nil { // of a run that was killed
			return err
		}
	}
	for _, c := range both {
		if err := setUp(ctx, c); err != nil {
			return err
		}
	}
	for _, c := range both {
		p, err := look(ctx, c)
		if err != nil {
			return err
		}
		s.places = append(s.places, p)
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	if run == "" {
		if err := os.WriteFile(page, []byte(s.report.render(home)), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", page, err)
		}
	}
	if n := s.report.bad(); n > 0 {
		return fmt.Errorf("%d attacks got through, or what is allowed doesn't work", n)
	}
	return nil
}
