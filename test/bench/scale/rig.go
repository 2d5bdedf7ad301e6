// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/roles"
	"github.com/fairlead-mesh/fairlead/test/bench/scale/workload"
)

// limit only ends a run that would never end.
const limit = 10 * time.Minute

// rig is a mesh at work: the store, the writing clusters' publishers (in this process), home's operator and one agent.
type rig struct {
	dir     string
	mesh    *workload.Mesh
	say     func(format string, args ...any)
	relay   roles.RelayFiles
	sizes   map[string]uint32
	writers map[string]*writer
	order   []string
	kernel  *kernel

	store, operator, agent *process.Child
}

// writer publishes as one cluster.
type writer struct {
	publisher *store.Publisher
	stop      func()
}

// newRig starts the store and publishes everything. Close it, also after an error.
func newRig(dir string, mesh *workload.Mesh, sizes map[string]uint32, say func(string, ...any)) (*rig, error) {
	r := &rig{dir: dir, mesh: mesh, sizes: sizes, say: say, writers: map[string]*writer{}}
	for _, sub := range []string{"store", "agent", "bpf"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return r, fmt.Errorf("prepare %s: %w", dir, err)
		}
	}
	if err := unix.Mount("bpf", r.bpffs(), "bpf", 0, "mode=0700"); err != nil {
		return r, fmt.Errorf("mount a BPF file system (as root?): %w", err)
	}
	var err error
	if r.relay, err = relayFiles(dir); err != nil {
		return r, err
	}
	if err := r.writeLocal("local", mesh.Home.Records()); err != nil {
		return r, err
	}
	users := []string{workload.Home}
	for _, c := range mesh.Clusters {
		users = append(users, c.Name)
	}
	if r.store, err = process.Start(roles.Store, dir, roles.StoreConfig{Dir: r.storeDir(), Users: users}, 0); err != nil {
		return r, err
	}
	return r, r.publish()
}

func (r *rig) bpffs() string    { return filepath.Join(r.dir, "bpf") }
func (r *rig) pins() string     { return filepath.Join(r.bpffs(), "fairlead") }
func (r *rig) storeDir() string { return filepath.Join(r.dir, "store") }

func (r *rig) close() {
	for _, c := range []*process.Child{r.agent, r.operator} {
		if c != nil {
			c.Stop()
		}
	}
	for _, w := range r.writers {
		w.stop()
	}
	if r.store != nil {
		r.store.Stop()
	}
	if r.kernel != nil {
		r.kernel.close()
	}
	_ = unix.Unmount(r.bpffs(), unix.MNT_DETACH)
}

// writeLocal writes records for the operator's own cluster to a file; gone ones have no payload but a key.
func (r *rig) writeLocal(name string, recs []*recordv1.Record, gone ...string) error {
	f, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		return fmt.Errorf("write records: %w", err)
	}
	out := bufio.NewWriter(f)
	for _, rec := range recs {
		key, err := record.Key(rec)
		if err == nil {
			_, err = protodelim.MarshalTo(out, &relayv1.Change{Key: key, Record: rec})
		}
		if err != nil {
			return errors.Join(fmt.Errorf("write records: %w", err), f.Close())
		}
	}
	for _, key := range gone {
		if _, err := protodelim.MarshalTo(out, &relayv1.Change{Key: key}); err != nil {
			return errors.Join(fmt.Errorf("write records: %w", err), f.Close())
		}
	}
	return errors.Join(out.Flush(), f.Close())
}

// publish lets every cluster publish its records and waits until all are in the store.
func (r *rig) publish() error {
	var endpoint string
	if err := r.store.Call("endpoint", roles.None{}, &endpoint); err != nil {
		return err
	}
	writers := make([]*writer, len(r.mesh.Clusters))
	var group errgroup.Group
	group.SetLimit(4)
	for i, c := range r.mesh.Clusters {
		r.order = append(r.order, c.Name)
		group.Go(func() (err error) {
			writers[i], err = r.newWriter(c, endpoint)
			return err
		})
	}
	err := group.Wait()
	for i, w := range writers {
		if w != nil {
			r.writers[r.order[i]] = w
		}
	}
	if err != nil {
		return err
	}
	return r.await("publish", func() (bool, string, error) {
		done, total := 0, len(r.writers)
		for _, w := range r.writers {
			if s := w.publisher.Status(); s.Synced && s.Pending == 0 {
				done++
			}
		}
		return done == total, fmt.Sprintf("%d of %d clusters are in the store", done, total), nil
	})
}

func (r *rig) newWriter(c *workload.Cluster, endpoint string) (*writer, error) {
	set, err := c.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode the records of %s: %w", c.Name, err)
	}
	conf, err := roles.StoreTLS(r.storeDir(), c.Name)
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(context.Background(), store.Config{Endpoints: []string{endpoint}, TLS: conf, Cluster: c.Name, Logger: log, Timeout: 30 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("open the store as %s: %w", c.Name, err)
	}
	p := store.NewPublisher(c.Name, log)
	p.SetDesired(set)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx, st) }()
	return &writer{publisher: p, stop: func() { cancel(); <-done; _ = st.Close() }}, nil
}

func member(c *workload.Cluster) roles.Member {
	return roles.Member{Name: c.Name, ID: c.ID, PodCIDR: c.PodCIDR()}
}

// startOperator starts home's operator, anew or for the first time.
func (r *rig) startOperator() error {
	cfg := roles.OperatorConfig{
		MeshID: workload.MeshID, Home: member(r.mesh.Home), StoreDir: r.storeDir(), Relay: r.relay, Local: filepath.Join(r.dir, "local"),
	}
	for _, c := range r.mesh.Clusters {
		cfg.Members = append(cfg.Members, member(c))
	}
	if err := r.store.Call("endpoint", roles.None{}, &cfg.Endpoint); err != nil {
		return err
	}
	var err error
	r.operator, err = process.Start(roles.Operator, r.dir, cfg, 0)
	return err
}

// startAgent starts the agent of home's first node, anew or for the first time. The kernel's maps outlive it.
func (r *rig) startAgent() error {
	home := r.mesh.Home
	cfg := roles.AgentConfig{
		Node: home.NodeName(0), Address: home.NodeAddress(0), Pods: home.PodsOf(0), Dir: filepath.Join(r.dir, "agent"),
		Pins: r.pins(), Sizes: r.sizes, Relay: r.relay,
	}
	var err error
	if r.agent, err = process.Start(roles.Agent, r.dir, cfg, unix.CLONE_NEWNET); err != nil {
		return err
	}
	if r.kernel == nil {
		r.kernel, err = openKernel(r.pins())
	}
	return err
}

// awaitOperator waits until the relay holds every record of the mesh.
func (r *rig) awaitOperator(records int) error {
	return r.await("operator", func() (bool, string, error) {
		var p roles.Progress
		err := r.operator.Call("progress", roles.None{}, &p)
		return p.Records >= records, fmt.Sprintf("%d of %d records (%d refused)", p.Records, records, p.Rejected), err
	})
}

// awaitProgrammed waits until the agent's maps hold every pod's address, each with its identity.
func (r *rig) awaitProgrammed() error {
	want := r.mesh.Want()
	var sample []netip.Addr
	for addr := range want { // in no order: a sample that is complete makes it likely that all are
		if sample = append(sample, addr); len(sample) == 500 {
			break
		}
	}
	// Looked at rarely: the agent is to have the CPUs, and it takes seconds.
	return r.awaitEach(5*time.Millisecond, "agent", func() (bool, string, error) {
		found, err := r.kernel.count(sample, want)
		if err != nil || found < len(sample) {
			return false, fmt.Sprintf("about %d%% of %d addresses", 100*found/len(sample), len(want)), err
		}
		diff, err := r.kernel.compare(want)
		return diff.equal(), diff.String(), err
	})
}

// await polls until done, and shows how far it is each few seconds.
func (r *rig) await(what string, done func() (bool, string, error)) error {
	return r.awaitEach(poll, what, done)
}

func (r *rig) awaitEach(pause time.Duration, what string, done func() (bool, string, error)) error {
	shown := time.Now()
	for deadline := time.Now().Add(limit); ; time.Sleep(pause) {
		ok, how, err := done()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		if time.Since(shown) > 5*time.Second {
			r.say("%s: %s", what, how)
			shown = time.Now()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %s", what, limit, how)
		}
	}
}
