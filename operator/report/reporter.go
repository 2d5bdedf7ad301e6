// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package report writes what node agents report into MeshNode objects, no more often than somebody needs to read it.
package report

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
)

const (
	// lazy is how soon changes are written that only people look at, such as counters.
	lazy = 10 * time.Second
	// alive is how soon a report is written that changes nothing, so that its time shows the agent is there.
	alive = time.Minute
)

// Reporter takes reports. Every replica does, each from the agents that are connected to it.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshnodes,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshnodes/status,verbs=get;patch;update
// +kubebuilder:rbac:groups="",resources=nodes,verbs=get;list;watch
type Reporter struct {
	client client.Client
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	written map[string]written
	locks   map[string]*sync.Mutex
}

// written is what was last written of a node. The cache may lag behind it.
type written struct {
	at     time.Time
	object *v1alpha1.MeshNode
}

// cacheLag is how long an own write counts more than the cache. Past it another replica may have written.
const cacheLag = 5 * time.Second

// New makes a Reporter.
func New(c client.Client, log *slog.Logger) *Reporter {
	return &Reporter{client: c, log: log, now: time.Now, written: map[string]written{}, locks: map[string]*sync.Mutex{}}
}

// Report takes one report; the relay has checked that it comes from the node it names.
func (r *Reporter) Report(ctx context.Context, req *relayv1.ReportRequest) error {
	lock := r.lock(req.GetNode())
	lock.Lock()
	defer lock.Unlock()

	mn, err := r.meshNode(ctx, req.GetNode())
	if err != nil {
		return err
	}
	want := statusOf(req, mn.Status, r.now())
	if !r.due(mn, &want) {
		return nil
	}
	before := mn.DeepCopy()
	mn.Status = want
	if err := r.client.Status().Patch(ctx, mn, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("write the report of node %s: %w", req.GetNode(), err)
	}
	r.mu.Lock()
	r.written[req.GetNode()] = written{at: r.now(), object: mn}
	r.mu.Unlock()
	return nil
}

func (r *Reporter) lock(node string) *sync.Mutex {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.locks[node] == nil {
		r.locks[node] = &sync.Mutex{}
	}
	return r.locks[node]
}

// due says whether a report is worth a write now.
func (r *Reporter) due(mn *v1alpha1.MeshNode, want *v1alpha1.MeshNodeStatus) bool {
	if !equality.Semantic.DeepEqual(urgent(&mn.Status), urgent(want)) {
		return true
	}
	r.mu.Lock()
	age := r.now().Sub(r.written[mn.Name].at)
	r.mu.Unlock()
	if age >= alive {
		return true
	}
	have, now := mn.Status.DeepCopy(), want.DeepCopy()
	have.LastReportTime, now.LastReportTime = nil, nil
	return age >= lazy && !equality.Semantic.DeepEqual(have, now)
}

// urgent keeps what somebody waits for: the key without which nobody sends to this node, what policies are in force,
// which tunnels stand, what is wrong.
func urgent(s *v1alpha1.MeshNodeStatus) *v1alpha1.MeshNodeStatus {
	u := s.DeepCopy()
	u.LastReportTime, u.AppliedRevision, u.Drops = nil, "", nil
	u.Endpoints, u.Services = 0, 0
	for i := range u.Tunnels {
		t := &u.Tunnels[i]
		t.Connected, t.LatestHandshakeTime = 0, nil
		for n := range t.Broken {
			t.Broken[n].LastHandshakeTime = nil
		}
	}
	return u
}

// meshNode reads a node's MeshNode, or makes it. It belongs to the Node and goes with it.
func (r *Reporter) meshNode(ctx context.Context, name string) (*v1alpha1.MeshNode, error) {
	r.mu.Lock()
	last := r.written[name]
	r.mu.Unlock()
	if last.object != nil && r.now().Sub(last.at) < cacheLag {
		return last.object.DeepCopy(), nil
	}
	mn := &v1alpha1.MeshNode{}
	err := r.client.Get(ctx, client.ObjectKey{Name: name}, mn)
	if err == nil {
		return mn, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read MeshNode %s: %w", name, err)
	}
	node := &corev1.Node{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: name}, node); err != nil {
		return nil, fmt.Errorf("read Node %s: %w", name, err)
	}
	mn = &v1alpha1.MeshNode{ObjectMeta: metav1.ObjectMeta{
		Name:            name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: name, UID: node.UID}},
	}}
	if err := r.client.Create(ctx, mn); err != nil && !apierrors.IsAlreadyExists(err) {
		return nil, fmt.Errorf("create MeshNode %s: %w", name, err)
	}
	return mn, nil
}
