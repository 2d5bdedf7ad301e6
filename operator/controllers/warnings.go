// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/recorder"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/export"
)

// Warnings sends events to the owners of objects that can't be used as they are. It runs on the leader.
type Warnings struct {
	reader client.Reader
	events recorder.EventRecorder
	log    *slog.Logger
	queue  chan export.Warning
}

// NewWarnings makes Warnings.
func NewWarnings(r client.Reader, events recorder.EventRecorder, log *slog.Logger) *Warnings {
	return &Warnings{reader: r, events: events, log: log, queue: make(chan export.Warning, 1024)}
}

// Changed takes warnings. What doesn't fit the queue is in the log at least.
func (w *Warnings) Changed(_ *v1alpha1.ClusterMeshSpec, d export.Delta) {
	for _, warning := range d.Warnings {
		w.log.Warn("object can't be used as it is", "kind", warning.Kind, "namespace", warning.Namespace, "name", warning.Name, "why", warning.Message)
		select {
		case w.queue <- warning:
		default:
		}
	}
}

// NeedLeaderElection says that only the leader sends events: every replica sees the same objects.
func (w *Warnings) NeedLeaderElection() bool { return true }

// Start runs until ctx ends.
func (w *Warnings) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case warning := <-w.queue:
			w.send(ctx, warning)
		}
	}
}

func (w *Warnings) send(ctx context.Context, warning export.Warning) {
	o := objectOf(warning.Kind)
	if o == nil {
		return
	}
	if err := w.reader.Get(ctx, client.ObjectKey{Namespace: warning.Namespace, Name: warning.Name}, o); err != nil {
		return // gone, and its warning with it
	}
	w.events.Eventf(o, nil, corev1.EventTypeWarning, "FairleadWarning", "Export", "%s", warning.Message)
}

func objectOf(kind string) client.Object {
	switch kind {
	case "Pod":
		return &corev1.Pod{}
	case "Node":
		return &corev1.Node{}
	case "Service":
		return &corev1.Service{}
	case "EndpointSlice":
		return &discoveryv1.EndpointSlice{}
	}
	if k, ok := v1alpha1.PolicyKindNamed(kind); ok {
		return k.New()
	}
	return nil
}
