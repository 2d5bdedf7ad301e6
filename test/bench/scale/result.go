// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Result of a run, as it is kept in docs/scale. Times are milliseconds and sizes bytes unless a name says otherwise.
type Result struct {
	Label    string // what was measured, for readers: "before", "after"
	Commit   string
	Date     string
	Machine  string
	Load     string // of the machine when the run began: other work makes every time longer
	Seconds  float64
	Sizes    []Size
	Services *Services `json:",omitempty"`
	Policies *Policies `json:",omitempty"`
	Status   *Status   `json:",omitempty"`
	Million  *Million  `json:",omitempty"`
}

// Quantiles of a series.
type Quantiles struct {
	N             int
	P50, P99, Max float64
}

// Size is what was measured with so many writing clusters.
type Size struct {
	Clusters, Nodes, Identities, Endpoints, Records int
	Load                                            string

	OperatorCatchUp  float64 // process started → the relay holds all
	OperatorCPU      float64
	OperatorResident int64 // after the agent has all
	OperatorPeak     int64
	OperatorHeap     int64

	Bootstrap      float64 // agent connects → the kernel holds all
	BootstrapCPU   float64
	BootstrapWire  int64 // received
	AgentResident  int64
	AgentPeak      int64
	AgentHeap      int64
	KernelMaps     int64
	DiskOfSnapshot int64

	Quiet Change // one endpoint at a time, nothing else
	Churn Churn

	RestartStore, RestartOperator, RestartAgent Restart

	Readers Readers

	// Failed parts, with the reason. What comes after them was measured all the same.
	Failed []string `json:",omitempty"`
}

// Change is the cost of one change.
type Change struct {
	Latency Quantiles // publisher is given it → the kernel has it
	CPU     Quantiles // of the agent
	MeanCPU float64   // what the agent does later (reports, the disk) included
	Garbage int64     // allocated by the agent
	Wire    int64     // received by the agent
	Disk    int64     // written by the agent for one that comes alone
}

// Churn is a mesh at work.
type Churn struct {
	Seconds          float64
	ChangesPerSecond float64
	Latency          Quantiles
	AgentCPU         float64 // of one CPU, 1 = all of it
	OperatorCPU      float64
	StoreCPU         float64
	WirePerSecond    int64
	DiskPerSecond    int64
	DiskPerChange    int64
	GarbagePerSecond int64
	AgentPeak        int64
	Reconnects       int64
	Problems         []string `json:",omitempty"`
}

// Restart of one part, under churn.
type Restart struct {
	CaughtUp     float64 // part is started → an address that a pod got while it was down is in the kernel
	Pruned       float64 // … and the address that the pod had before is not
	OperatorRead int64   // bytes that the operator read meanwhile: a full list is about as much as all records
	AgentRead    int64   // from the relay
}

// Readers are agents beside the measured one that read slowly or not at all.
type Readers struct {
	Slow, Stuck                   int
	Latency                       Quantiles // of the measured agent
	OperatorBefore, OperatorAfter int64     // resident
	HeapBefore, HeapAfter         int64
}

// Services in the agent's kernel.
type Services struct {
	Load string
	// Program is how long N services take from the operator to the kernel, by N.
	Program []Programmed
	// Backend is one backend of 10,000 that changes.
	Backend      Change
	BackendRows  float64 // map rows that differ after one such change
	BackendCount int
}

// Programmed is how long some objects took to be in the kernel.
type Programmed struct {
	Count int
	Time  float64
	CPU   float64
}

// Policies of the agent's cluster.
type Policies struct {
	Load                 string
	Policies, Identities int
	All                  Programmed // the first time
	Identity             Change     // one identity appears
	Policy               Change     // one policy changes
}

// Status is one pass over all statuses.
type Status struct {
	Load            string
	Policies, Nodes int
	CPU             float64 // a pass
	Garbage         int64
}

// Million is the mesh of millions of endpoints.
type Million struct {
	Load                                                  string
	Clusters, Endpoints                                   int
	Bootstrap                                             float64
	AgentResident, AgentPeak, OperatorResident, KernelMap int64
	Latency                                               Quantiles
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func quantiles(d []time.Duration) (q Quantiles) {
	if len(d) == 0 {
		return q
	}
	d = slices.Sorted(slices.Values(d))
	at := func(p int) float64 { return ms(d[max((len(d)*p+99)/100, 1)-1]) }
	return Quantiles{N: len(d), P50: at(50), P99: at(99), Max: at(100)}
}

// machine says where.
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown machine"
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "unknown machine"
	}
	return fmt.Sprintf("kernel %s, %d CPUs, %d GiB", unix.ByteSliceToString(u.Release[:]), runtime.NumCPU(), (info.Totalram*uint64(info.Unit)+1<<29)>>30)
}

// load says how busy: figures of a loaded machine are only good for comparing with others of the same run.
func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	return string(first)
}

// save writes a result. Parts that this run didn't measure stay as an earlier run left them, if that was of the same
// commit under the same label.
func (r *Result) save(path string) error {
	whole := *r
	whole.Sizes = slices.Clone(r.Sizes)
	if old, err := loadResult(path); err == nil && old.Commit == r.Commit {
		whole.complete(old)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := json.MarshalIndent(whole, "", " ")
	if err != nil {
		return fmt.Errorf("encode the result: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	return nil
}

// complete takes from an older result what this one lacks.
func (r *Result) complete(old *Result) {
	for _, s := range old.Sizes {
		if !slices.ContainsFunc(r.Sizes, func(n Size) bool { return n.Clusters == s.Clusters }) {
			r.Sizes = append(r.Sizes, s)
		}
	}
	slices.SortFunc(r.Sizes, func(a, b Size) int { return a.Clusters - b.Clusters })
	r.Services = cmp.Or(r.Services, old.Services)
	r.Policies = cmp.Or(r.Policies, old.Policies)
	r.Status = cmp.Or(r.Status, old.Status)
	r.Million = cmp.Or(r.Million, old.Million)
}

func loadResult(path string) (*Result, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the result: %w", err)
	}
	r := &Result{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}
