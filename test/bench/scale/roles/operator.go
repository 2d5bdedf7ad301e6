// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package roles

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protodelim"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/operator/export"
	"github.com/fairlead-mesh/fairlead/operator/federate"
	"github.com/fairlead-mesh/fairlead/test/bench/process"
)

// Member is a cluster as a MeshCluster object describes it.
type Member struct {
	Name    string
	ID      uint8
	PodCIDR netip.Prefix
}

// OperatorConfig of the reading cluster's operator.
type OperatorConfig struct {
	MeshID   string
	Home     Member
	Members  []Member
	Endpoint string // of the shared etcd
	StoreDir string // where the credentials are
	Relay    RelayFiles
	Local    string // file with the records of home
}

// Progress is how far the operator is.
type Progress struct {
	Records     int
	Epoch       string
	Revision    uint64
	Subscribers int
	Rejected    int // records of other clusters that were refused
	Reports     int // by agents
	Watching    bool
}

// operator is the way from the store and the export to the relay, wired as the operator's main.go does. What stands for
// the API server is its answer: which MeshClusters there are, and what this cluster's objects became as records.
type operator struct {
	cfg     OperatorConfig
	log     *slog.Logger
	mesh    *v1alpha1.ClusterMeshSpec
	hub     *relay.Hub
	intake  *federate.Intake
	watcher *store.Watcher
	own     *store.Publisher
	server  *relay.Server
	reports atomic.Int64
}

func serveOperator(log *slog.Logger) error {
	o := &operator{log: log}
	return process.Serve(process.Handlers{
		"start":    process.Call(func(cfg OperatorConfig) (None, error) { o.cfg = cfg; return None{}, o.start() }),
		"progress": process.Call(func(None) (Progress, error) { return o.progress(), nil }),
		"apply":    process.Call(func(file string) (uint64, error) { return o.apply(file) }),
		"heap":     process.Call(heap),
	})
}

func (o *operator) start() error {
	m := o.cfg.Home
	o.mesh = &v1alpha1.ClusterMeshSpec{
		MeshID: o.cfg.MeshID, ClusterName: m.Name, ClusterID: int32(m.ID), PodCIDRs: []string{m.PodCIDR.String()},
	}
	o.hub = relay.NewHub(relay.DefaultHistory)
	o.intake = federate.NewIntake(o.hub, o.log)
	o.watcher = store.NewWatcher(o.intake, o.log)
	o.own = store.NewPublisher(m.Name, o.log)
	o.own.SetDesired(record.Set{})
	if _, err := o.apply(o.cfg.Local); err != nil {
		return err
	}
	o.intake.SetDecisions(federate.Decide(o.mesh, o.meshClusters()))
	o.server = relay.NewServer(o.hub, relay.ServerConfig{
		Authenticate: func(_ context.Context, token string) (string, error) { return token, nil },
		Report:       func(context.Context, *relayv1.ReportRequest) error { o.reports.Add(1); return nil },
		Logger:       o.log,
	})
	ctx := context.Background() // until the process ends
	go o.federate(ctx)
	return o.serve(ctx)
}

func (o *operator) meshClusters() []v1alpha1.MeshCluster {
	var out []v1alpha1.MeshCluster
	for _, m := range o.cfg.Members {
		out = append(out, v1alpha1.MeshCluster{
			ObjectMeta: metav1.ObjectMeta{Name: m.Name, CreationTimestamp: metav1.NewTime(time.Unix(int64(m.ID), 0))},
			Spec:       v1alpha1.MeshClusterSpec{ClusterID: int32(m.ID), PodCIDRs: []string{m.PodCIDR.String()}},
		})
	}
	return out
}

// federate keeps a connection to the store, as federate.Connection does.
func (o *operator) federate(ctx context.Context) {
	conf, err := StoreTLS(o.cfg.StoreDir, o.cfg.Home.Name)
	if err != nil {
		o.log.Error("no credential", "error", err)
		return
	}
	for ctx.Err() == nil {
		st, err := store.Open(ctx, store.Config{Endpoints: []string{o.cfg.Endpoint}, TLS: conf, Cluster: o.cfg.Home.Name, Logger: o.log})
		if err != nil {
			o.log.Warn("open the store", "error", err)
			time.Sleep(200 * time.Millisecond) // the operator waits a second; a bench of restarts wants its own time, not this one
			continue
		}
		go func() { _ = o.own.Run(ctx, st) }()
		_ = o.watcher.Run(ctx, st)
		_ = st.Close()
	}
}

func (o *operator) serve(ctx context.Context) error {
	pair, err := tls.LoadX509KeyPair(o.cfg.Relay.Cert, o.cfg.Relay.Key)
	if err != nil {
		return fmt.Errorf("read the relay's certificate: %w", err)
	}
	_ = os.Remove(o.cfg.Relay.Socket) // of the operator before this one
	lis, err := (&net.ListenConfig{}).Listen(ctx, "unix", o.cfg.Relay.Socket)
	if err != nil {
		return fmt.Errorf("open the relay: %w", err)
	}
	go func() {
		creds := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}})
		if err := o.server.Serve(ctx, lis, creds); err != nil {
			o.log.Error("relay ended", "error", err)
		}
	}()
	return nil
}

// apply takes records of home from a file, as the export would hand them on, and gives the hub's revision after.
func (o *operator) apply(file string) (uint64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("read records of this cluster: %w", err)
	}
	defer f.Close()
	d := export.Delta{Published: record.Delta{Put: record.Set{}}}
	in := bufio.NewReader(f)
	for {
		change := &relayv1.Change{}
		err := protodelim.UnmarshalFrom(in, change)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read records of this cluster: %w", err)
		}
		d.Local = append(d.Local, export.Change{Key: change.GetKey(), Record: change.GetRecord()})
		if change.GetRecord() == nil {
			d.Published.Delete = append(d.Published.Delete, change.GetKey())
		} else if k := record.Kind(change.GetKey()); k != record.KindService && k != record.KindSlice {
			if d.Published.Put[change.GetKey()], err = record.Marshal(change.GetRecord()); err != nil {
				return 0, fmt.Errorf("encode %s: %w", change.GetKey(), err)
			}
		}
	}
	o.intake.Changed(o.mesh, d)
	o.own.Apply(d.Published)
	return o.hub.At().GetRevision(), nil
}

func (o *operator) progress() Progress {
	at := o.hub.At()
	p := Progress{
		Records: o.hub.Len(), Epoch: at.GetEpoch(), Revision: at.GetRevision(),
		Subscribers: len(o.server.Subscribers()), Reports: int(o.reports.Load()), Watching: o.watcher.Status().Reachable,
	}
	for _, r := range o.intake.Overview().Remotes {
		p.Rejected += r.Rejected
	}
	return p
}
