// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package federate

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/mesh/wakeup"
)

// MeshName is the name of a cluster's one ClusterMesh.
const MeshName = "mesh"

// Discoverer writes a MeshCluster for each cluster that shows up in the shared etcd, with what it claims at that
// moment; from then on the object counts, and not what the cluster says. It runs on the leader.
//
// +kubebuilder:rbac:groups=fairlead.dev,resources=meshclusters,verbs=get;list;watch;create
type Discoverer struct {
	Client client.Client
	Intake *Intake
	Events recorder.EventRecorder
	Log    *slog.Logger

	mu      sync.Mutex
	refused map[string]string
	wake    wakeup.Signal
}

// NewDiscoverer makes a Discoverer that looks whenever the Intake changed.
func NewDiscoverer(c client.Client, intake *Intake, events recorder.EventRecorder, log *slog.Logger) *Discoverer {
	d := &Discoverer{Client: c, Intake: intake, Events: events, Log: log, refused: map[string]string{}, wake: wakeup.New()}
	intake.OnChange(func() {
		d.wake.Raise()
	})
	return d
}

// Refused lists clusters that were not let in, and why.
func (d *Discoverer) Refused() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.refused)
}

// NeedLeaderElection says that only the leader creates objects.
func (d *Discoverer) NeedLeaderElection() bool { return true }

// Start runs until ctx ends.
func (d *Discoverer) Start(ctx context.Context) error {
	// Newcomers aren't in a hurry, and heartbeats wake this up too.
	pause := time.NewTicker(200 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			d.look(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

func (d *Discoverer) look(ctx context.Context) {
	mesh := &v1alpha1.ClusterMesh{}
	if err := d.Client.Get(ctx, client.ObjectKey{Name: MeshName}, mesh); err != nil {
		return // the connection's status says so
	}
	// The objects and not the Intake's decisions, which may lag behind: a conflict with any of them has to show.
	var known v1alpha1.MeshClusterList
	if err := d.Client.List(ctx, &known); err != nil {
		d.Log.Error("list MeshClusters", "error", err)
		return
	}
	decisions, refused := Decide(&mesh.Spec, known.Items), map[string]string{}
	remotes := d.Intake.Overview().Remotes
	for _, name := range slices.Sorted(maps.Keys(remotes)) {
		r := remotes[name]
		if _, has := decisions[name]; has || name == mesh.Spec.ClusterName || r.Announced == nil || !r.State.Synced || r.State.Stale {
			continue
		}
		if why := d.admit(ctx, mesh, name, r, decisions); why != "" {
			refused[name] = why
		}
	}
	d.setRefused(mesh, refused)
}

func (d *Discoverer) admit(ctx context.Context, mesh *v1alpha1.ClusterMesh, name string, r RemoteOverview, decisions map[string]Decision) string {
	spec, err := Admit(&mesh.Spec, r.Announced, decisions)
	if err != nil {
		return err.Error()
	}
	mc := &v1alpha1.MeshCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
	if err := d.Client.Create(ctx, mc); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return ""
		}
		return "write its MeshCluster: " + err.Error()
	}
	// Two newcomers that want the same must not both get in before the cache knows of the first.
	maps.Copy(decisions, Decide(&mesh.Spec, []v1alpha1.MeshCluster{*mc}))
	d.Log.Info("cluster found", "cluster", name, "clusterID", spec.ClusterID, "podCIDRs", spec.PodCIDRs)
	d.Events.Eventf(mesh, mc, corev1.EventTypeNormal, "ClusterFound", "Discover", "cluster %s (id %d, pods in %v) joined the mesh", name, spec.ClusterID, spec.PodCIDRs)
	return ""
}

func (d *Discoverer) setRefused(mesh *v1alpha1.ClusterMesh, refused map[string]string) {
	d.mu.Lock()
	was := d.refused
	d.refused = refused
	d.mu.Unlock()
	for name, why := range refused {
		if was[name] == why {
			continue
		}
		d.Log.Warn("cluster refused", "cluster", name, "why", why)
		d.Events.Eventf(mesh, nil, corev1.EventTypeWarning, "ClusterRefused", "Discover", "cluster %s is not let in: %s", name, why)
	}
}
