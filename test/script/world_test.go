// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/mesh/store/storetest"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
)

// members may take part in stories; each has a user in the store.
var members = []string{"east", "west", "north", "mallory"}

// storeEndpoint stands in a story's ClusterMesh for the store, whose port nobody knows before.
const storeEndpoint = "https://store.example:2379"

// world is everything there is in a story.
type world struct {
	t   *testing.T
	dir string
	log *slog.Logger

	git      *git
	etcd     *storetest.Etcd
	admin    *clientv3.Client
	down     bool
	clusters map[string]*cluster
	nodes    map[string]*node
	forgers  map[string]*forger
}

// forger publishes as a member, but what a story says.
type forger struct {
	publisher *store.Publisher
	stop      func()
}

// node is a node: its kernel, its disk, and its agent unless that is stopped.
type node struct {
	name    string
	cluster *cluster
	ownCNI  bool
	kernel  *kernel
	disk    string

	agent   *agent.Agent // the last one, running or not
	running bool
	cancel  context.CancelFunc
	done    chan error
}

func newWorld(t *testing.T, dir string) *world {
	t.Helper()
	w := &world{
		t: t, dir: dir, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
		clusters: map[string]*cluster{}, nodes: map[string]*node{}, forgers: map[string]*forger{},
	}
	var err error
	if w.git, err = newGit(t, dir); err != nil {
		t.Fatal(err)
	}
	w.etcd = storetest.Start(t, members...)
	w.admin = w.etcd.Admin()
	t.Cleanup(w.end)
	return w
}

// end stops everything; the store ends by itself after.
func (w *world) end() {
	for _, f := range w.forgers {
		f.stop()
	}
	for _, n := range w.nodes {
		if err := n.stop(); err != nil {
			w.t.Errorf("agent of %s: %v", n.name, err)
		}
	}
	for _, c := range w.clusters {
		c.stop()
	}
}

// file reads a file of the story.
func (w *world) file(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		return "", err
	}
	return strings.NewReplacer(storeEndpoint, w.etcd.Endpoint(), gitServer, w.git.url).Replace(string(b)), nil
}

// startCluster applies a cluster's objects and starts its operator; without objects it starts the operator again.
func (w *world) startCluster(name string, files []string) error {
	c := w.clusters[name]
	if c == nil {
		c = &cluster{name: name, kube: newKube()}
		w.clusters[name] = c
		ca, cert, key := w.etcd.Files(name)
		if err := c.kube.Create(context.Background(), secret(namespace, "fairlead-store", ca, cert, key)); err != nil {
			return err
		}
	}
	if c.operator != nil {
		return fmt.Errorf("the operator of %s runs already", name)
	}
	if err := w.apply(c, files); err != nil {
		return err
	}
	return c.start(w.log)
}

func (w *world) apply(c *cluster, files []string) error {
	for _, f := range files {
		text, err := w.file(f)
		if err != nil {
			return err
		}
		if err := c.kube.apply(context.Background(), text); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

// newNode gives a node its kernel and starts its agent. Its name begins with its cluster's.
func (w *world) newNode(name string, ownCNI bool) error {
	prefix, _, _ := strings.Cut(name, "-")
	c := w.clusters[prefix]
	if c == nil {
		return fmt.Errorf("node %s: there is no cluster %s", name, prefix)
	}
	object := &corev1.Node{}
	if err := c.kube.Get(context.Background(), client.ObjectKey{Name: name}, object); err != nil {
		return fmt.Errorf("node %s: %w", name, err)
	}
	n := &node{name: name, cluster: c, ownCNI: ownCNI, kernel: newKernel(name), disk: filepath.Join(w.dir, "disk", name)}
	for _, a := range object.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			n.kernel.nodeAddresses = append(n.kernel.nodeAddresses, netip.MustParseAddr(a.Address))
		}
	}
	w.nodes[name] = n
	return n.start(w.log)
}

// start runs an agent on the node with nothing in memory, but with what the kernel and the disk hold.
func (n *node) start(log *slog.Logger) error {
	if n.running {
		return fmt.Errorf("the agent of %s runs already", n.name)
	}
	log = log.With("agent", n.name)
	a := agent.New(agent.Config{
		Node: n.name, Version: version, OwnCNI: n.ownCNI, Snapshot: filepath.Join(n.disk, "snapshot"), Log: log,
	}, n.kernel.drivers(), relay.NewClient(relay.ClientConfig{
		Targets: []string{n.cluster.name + ".relay:4240"}, Node: n.name, Logger: log, Dial: n.cluster.network.dial,
		Token: func(context.Context) (string, error) { return n.name, nil },
	}))
	ctx, cancel := context.WithCancel(context.Background())
	n.agent, n.cancel, n.running, n.done = a, cancel, true, make(chan error, 1)
	go func() { n.done <- a.Run(ctx, "") }()
	return nil
}

func (n *node) stop() error {
	if !n.running {
		return nil
	}
	// Every story lets its nodes come to rest, and then a restart must find the maps that the programs use.
	inForce := n.agent.Synced()
	n.running = false
	n.cancel()
	if err := <-n.done; err != nil {
		return err
	}
	if settled := n.kernel.settled.Swap(false); inForce.Planned && len(inForce.Failing) == 0 && !settled {
		return fmt.Errorf("the agent of %s never had its maps pinned", n.name)
	}
	return nil
}

// forge makes a member publish exactly these records, as a member does that keeps to no rule but the store's.
func (w *world) forge(user string, set record.Set) error {
	f := w.forgers[user]
	if f == nil {
		var err error
		if f, err = w.newForger(user); err != nil {
			return err
		}
		w.forgers[user] = f
	}
	f.publisher.SetDesired(set)
	for deadline := time.Now().Add(timeout); ; time.Sleep(poll) {
		s := f.publisher.Status()
		if s.Synced && s.Published == len(set) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s could not publish: %w", user, s.LastError)
		}
	}
}

func (w *world) newForger(user string) (*forger, error) {
	st, err := store.Open(context.Background(), store.Config{
		Endpoints: []string{w.etcd.Endpoint()}, TLS: w.etcd.TLS(user), Cluster: user, Logger: w.log,
	})
	if err != nil {
		return nil, err
	}
	f := &forger{publisher: store.NewPublisher(user, w.log)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.publisher.Run(ctx, st) }()
	f.stop = func() { cancel(); <-done; _ = st.Close() }
	return f, nil
}

const (
	poll = 10 * time.Millisecond
	// rest is how many looks in a row must find everything unchanged. Statuses are written up to 300 ms after their cause.
	rest = 35
	// timeout only ends a story that would never come to rest.
	timeout = time.Minute
)

// settle waits until everything is at rest: no part has anything left to do, and nothing moved for a while.
func (w *world) settle() error {
	var before, why string
	deadline := time.Now().Add(timeout)
	for quiet := 0; quiet < rest; time.Sleep(poll) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the mesh doesn't come to rest: %s", why)
		}
		if why = w.busy(); why != "" {
			quiet = 0
			continue
		}
		if now := w.fingerprint(); now != before {
			before, quiet, why = now, 0, "rows still change"
			continue
		}
		quiet++
	}
	return nil
}

// busy names something that is still under way.
func (w *world) busy() string {
	var revision int64
	if !w.down {
		resp, err := w.admin.Get(context.Background(), store.Root, clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			return "asking the store: " + err.Error()
		}
		revision = resp.Header.Revision
	}
	for _, name := range slices.Sorted(maps.Keys(w.clusters)) {
		if why := w.operatorBusy(w.clusters[name], revision); why != "" {
			return "operator of " + name + ": " + why
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		if why := w.agentBusy(w.nodes[name]); why != "" {
			return "agent of " + name + ": " + why
		}
	}
	return ""
}

func (w *world) operatorBusy(c *cluster, revision int64) string {
	o := c.operator
	if o == nil {
		return ""
	}
	if err := o.failed.Load(); err != nil {
		return (*err).Error()
	}
	if n := len(o.Observer.Unnumbered()); n > 0 {
		return fmt.Sprintf("%d label sets have no identity", n)
	}
	if why := c.sourcesBusy(w.git); why != "" {
		return why
	}
	if w.down {
		return ""
	}
	st := o.Connection.Status()
	switch {
	case st.Err != nil:
		return st.Err.Error()
	case !st.Publish.Synced || st.Publish.Pending > 0:
		return fmt.Sprintf("publishing: %+v", st.Publish)
	case st.Watch.Revision != revision:
		return fmt.Sprintf("watches at revision %d of %d", st.Watch.Revision, revision)
	}
	refused := o.Discoverer.Refused()
	for name, r := range o.Intake.Overview().Remotes {
		_, no := refused[name]
		if r.State.Synced && !r.State.Stale && r.Announced != nil && r.Decision == nil && !no {
			return "has not decided about " + name
		}
	}
	for name, other := range w.clusters {
		r := o.Intake.Overview().Remotes[name]
		if other != c && other.operator != nil && (!r.State.Synced || r.State.Stale) {
			return "waits for " + name
		}
	}
	return ""
}

func (w *world) agentBusy(n *node) string {
	if !n.running {
		return ""
	}
	select {
	case err := <-n.done:
		n.done <- err
		return fmt.Sprintf("ended: %v", err)
	default:
	}
	s := n.agent.State()
	broken := slices.ContainsFunc(n.kernel.maps(), breakable.broken)
	if o := n.cluster.operator; o != nil && !n.cluster.network.isCut() {
		at := o.Hub.At()
		if !s.Relay.Connected || s.Relay.Position.Epoch != at.GetEpoch() || s.Relay.Position.Revision != at.GetRevision() {
			return fmt.Sprintf("received %+v of %v", s.Relay, at)
		}
		node, err := n.cluster.meshNode(n.name)
		if err != nil || node.Status.WireGuardPublicKey == "" {
			return fmt.Sprintf("has not reported: %v", err)
		}
	}
	if !broken && s.Relay.Position != s.Applied {
		return fmt.Sprintf("applied %+v of %+v", s.Applied, s.Relay.Position)
	}
	for _, t := range s.Tables {
		if t.Pending > 0 || t.Failed > 0 && !broken {
			return fmt.Sprintf("%d rows of %s wait, %d fail: %+v", t.Pending, t.Name, t.Failed, s.Problems)
		}
	}
	return ""
}

// fingerprint changes whenever something is written somewhere.
func (w *world) fingerprint() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.clusters)) {
		c := w.clusters[name]
		fmt.Fprintf(&b, "%s %d ", name, c.kube.written())
		if c.operator != nil {
			fmt.Fprint(&b, c.operator.Hub.At().GetRevision(), c.operator.Hub.Keys())
			for _, r := range slices.Sorted(maps.Keys(c.operator.Intake.Overview().Remotes)) {
				ro := c.operator.Intake.Overview().Remotes[r]
				fmt.Fprint(&b, r, ro.State.Synced, ro.State.Stale, ro.Rejected)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.nodes)) {
		n := w.nodes[name]
		for _, d := range n.kernel.maps() {
			fmt.Fprint(&b, d.operations(), ",")
		}
		if n.running {
			fmt.Fprint(&b, n.agent.State().Tables)
		}
	}
	return b.String()
}

// put writes one key as a member, whatever key it is.
func (w *world) put(user, key string, value []byte) error {
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{w.etcd.Endpoint()}, TLS: w.etcd.TLS(user), DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_, err = c.Put(context.Background(), key, string(value))
	return err
}
