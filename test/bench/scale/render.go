// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Marks in scale.md between which everything is made from the results.
const (
	beginMark = "<!-- made by go run ./test/bench/scale -render: what follows is overwritten -->"
	endMark   = "<!-- end -->"
)

// render remakes the generated part of scale.md, and its curves, from all results.
func render(out string) error {
	files, err := filepath.Glob(filepath.Join(out, "scale", "*.json"))
	if err != nil {
		return fmt.Errorf("list results: %w", err)
	}
	var results []*Result
	for _, f := range files {
		r, err := loadResult(f)
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	slices.SortStableFunc(results, func(a, b *Result) int { return strings.Compare(b.Label, a.Label) }) // before, after
	if len(results) == 0 {
		return fmt.Errorf("there are no results in %s", filepath.Join(out, "scale"))
	}
	for _, c := range curves(results) {
		if err := os.WriteFile(filepath.Join(out, "scale", c.file), c.svg(), 0o644); err != nil {
			return fmt.Errorf("write a curve: %w", err)
		}
	}
	path := filepath.Join(out, "scale.md")
	page, err := os.ReadFile(path)
	if err != nil {
		page = []byte(beginMark + "\n" + endMark + "\n")
	}
	before, rest, ok := bytes.Cut(page, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the marks between which it is made", path)
	}
	made := tables(results)
	text := slices.Concat(before, []byte(beginMark), []byte("\n\n"), []byte(made), []byte("\n"), []byte(endMark), after)
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	fmt.Print(made)
	return nil
}

// line of a table: a name, and what a size says to it.
type line struct {
	name string
	cell func(Size) string
}

var lines = []line{
	{"Operator: process start → relay holds all", func(s Size) string { return seconds(s.OperatorCatchUp) }},
	{"… its CPU time", func(s Size) string { return seconds(s.OperatorCPU) }},
	{"Operator: resident / peak / live heap", func(s Size) string {
		return mib(s.OperatorResident) + " / " + mib(s.OperatorPeak) + " / " + mib(s.OperatorHeap)
	}},
	{"Agent: connect → kernel programmed", func(s Size) string { return seconds(s.Bootstrap) }},
	{"… its CPU time", func(s Size) string { return seconds(s.BootstrapCPU) }},
	{"… bytes on the wire", func(s Size) string { return size(s.BootstrapWire) }},
	{"Agent: resident / peak / live heap", func(s Size) string {
		return mib(s.AgentResident) + " / " + mib(s.AgentPeak) + " / " + mib(s.AgentHeap)
	}},
	{"Agent: kernel memory of all maps", func(s Size) string { return mib(s.KernelMaps) }},
	{"One endpoint changes, nothing else: writer → kernel, p50 / p99", func(s Size) string { return pair(s.Quiet.Latency) }},
	{"… agent's CPU time until then, p50 / p99", func(s Size) string { return pair(s.Quiet.CPU) }},
	{"… agent's CPU time in all, mean", func(s Size) string { return duration(s.Quiet.MeanCPU) }},
	{"… allocated by the agent", func(s Size) string { return size(s.Quiet.Garbage) }},
	{"… on the wire", func(s Size) string { return size(s.Quiet.Wire) }},
	{"… written to the agent's disk", func(s Size) string { return size(s.Quiet.Disk) }},
	{"Under churn: changes a second", func(s Size) string { return fmt.Sprintf("%.0f", s.Churn.ChangesPerSecond) }},
	{"… writer → kernel, p50 / p99 / worst", func(s Size) string { return pair(s.Churn.Latency) + " / " + duration(s.Churn.Latency.Max) }},
	{"… CPUs used by agent / operator / store", func(s Size) string {
		return fmt.Sprintf("%.2f / %.2f / %.2f", s.Churn.AgentCPU, s.Churn.OperatorCPU, s.Churn.StoreCPU)
	}},
	{"… agent's peak", func(s Size) string { return mib(s.Churn.AgentPeak) }},
	{"… written to the agent's disk a second / a change", func(s Size) string { return size(s.Churn.DiskPerSecond) + " / " + size(s.Churn.DiskPerChange) }},
	{"… reconnects, problems", func(s Size) string { return fmt.Sprintf("%d, %d", s.Churn.Reconnects, len(s.Churn.Problems)) }},
	{"Store restarts: caught up / pruned / operator read", func(s Size) string {
		return s.RestartStore.times() + " / " + size(s.RestartStore.OperatorRead)
	}},
	{"Operator restarts: caught up / pruned / operator read / agent read", func(s Size) string {
		return s.RestartOperator.times() + " / " + size(s.RestartOperator.OperatorRead) + " / " + size(s.RestartOperator.AgentRead)
	}},
	{"Agent restarts: caught up / pruned / agent read", func(s Size) string {
		return s.RestartAgent.times() + " / " + size(s.RestartAgent.AgentRead)
	}},
	{"Beside 2 slow and 5 stuck readers: writer → kernel, p50 / p99", func(s Size) string { return pair(s.Readers.Latency) }},
	{"… operator's live heap before → after", func(s Size) string { return mib(s.Readers.HeapBefore) + " → " + mib(s.Readers.HeapAfter) }},
}

func tables(results []*Result) string {
	var b strings.Builder
	for _, r := range results {
		fmt.Fprintf(&b, "### %s\n\nCommit %s, %s; %s, load %s when it began.\n\n", r.Label, r.Commit, r.Date, r.Machine, r.Load)
		if len(r.Sizes) > 0 {
			sizeTable(&b, r.Sizes)
		}
		others(&b, r)
	}
	b.WriteString("### Growth\n\n")
	for _, c := range curves(results) {
		fmt.Fprintf(&b, "![%s](scale/%s)\n\n", c.title, c.file)
	}
	return b.String()
}

func sizeTable(b *strings.Builder, sizes []Size) {
	b.WriteString("| Clusters that write |")
	for _, s := range sizes {
		fmt.Fprintf(b, " %d |", s.Clusters)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(sizes)) + "\n| Nodes / identities / endpoints |")
	for _, s := range sizes {
		fmt.Fprintf(b, " %d / %d / %d |", s.Nodes, s.Identities, s.Endpoints)
	}
	b.WriteString("\n| Load of the machine |")
	for _, s := range sizes {
		fmt.Fprintf(b, " %s |", s.Load)
	}
	b.WriteString("\n")
	for _, l := range lines {
		fmt.Fprintf(b, "| %s |", l.name)
		for _, s := range sizes {
			fmt.Fprintf(b, " %s |", l.cell(s))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, s := range sizes {
		for _, failed := range s.Failed {
			fmt.Fprintf(b, "Failed with %d clusters: %s\n\n", s.Clusters, failed)
		}
	}
}

func others(b *strings.Builder, r *Result) {
	row := func(name, format string, args ...any) {
		fmt.Fprintf(b, "| %s | %s |\n", name, fmt.Sprintf(format, args...))
	}
	if r.Services == nil && r.Policies == nil && r.Status == nil && r.Million == nil {
		return
	}
	b.WriteString("| Beside the sizes | |\n|---|---|\n")
	if s := r.Services; s != nil {
		for _, p := range s.Program {
			row(fmt.Sprintf("%d services, operator → kernel (load %s)", p.Count, s.Load), "%s, %s of the agent's CPU", seconds(p.Time), seconds(p.CPU))
		}
		row(fmt.Sprintf("One backend of %d changes: operator → kernel, p50 / p99", s.BackendCount), "%s", pair(s.Backend.Latency))
		row("… agent's CPU time until then, p50 / p99", "%s", pair(s.Backend.CPU))
		row("… on the wire / allocated by the agent / map rows that differ", "%s / %s / %.1f", size(s.Backend.Wire), size(s.Backend.Garbage), s.BackendRows)
	}
	if p := r.Policies; p != nil {
		row(fmt.Sprintf("%d policies × %d identities, the first time (load %s)", p.Policies, p.Identities, p.Load), "%s, %s of the agent's CPU", seconds(p.All.Time), seconds(p.All.CPU))
		row("… an identity appears: writer → kernel, p50 / p99; agent's CPU, p50", "%s; %s", pair(p.Identity.Latency), duration(p.Identity.CPU.P50))
		row("… a policy changes: operator → kernel, p50 / p99; agent's CPU, p50", "%s; %s", pair(p.Policy.Latency), duration(p.Policy.CPU.P50))
	}
	if s := r.Status; s != nil {
		row(fmt.Sprintf("Status pass, %d policies × %d nodes (load %s)", s.Policies, s.Nodes, s.Load), "%s of CPU, %s allocated", seconds(s.CPU), size(s.Garbage))
	}
	if m := r.Million; m != nil {
		row(fmt.Sprintf("%d endpoints: agent, connect → kernel programmed (load %s)", m.Endpoints, m.Load), "%s", seconds(m.Bootstrap))
		row("… agent's resident / peak; its kernel maps", "%s / %s; %s", mib(m.AgentResident), mib(m.AgentPeak), mib(m.KernelMap))
		row("… operator's resident", "%s", mib(m.OperatorResident))
		row("… one endpoint changes: writer → kernel, p50 / p99", "%s", pair(m.Latency))
	}
	b.WriteString("\n")
}

// Figures for people.

// times of a restart. Results of older runs lack the second.
func (r Restart) times() string {
	if r.Pruned == 0 {
		return seconds(r.CaughtUp) + " / –"
	}
	return seconds(r.CaughtUp) + " / " + seconds(r.Pruned)
}

func seconds(milliseconds float64) string {
	if milliseconds < 1000 {
		return duration(milliseconds)
	}
	return fmt.Sprintf("%.1f s", milliseconds/1000)
}

func duration(milliseconds float64) string {
	switch {
	case milliseconds >= 10000:
		return fmt.Sprintf("%.1f s", milliseconds/1000)
	case milliseconds >= 100:
		return fmt.Sprintf("%.0f ms", milliseconds)
	case milliseconds >= 1:
		return fmt.Sprintf("%.1f ms", milliseconds)
	}
	return fmt.Sprintf("%.0f µs", milliseconds*1000)
}

func pair(q Quantiles) string { return duration(q.P50) + " / " + duration(q.P99) }

func mib(n int64) string { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }

func size(n int64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}
