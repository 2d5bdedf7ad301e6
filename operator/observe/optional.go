// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// lookAgain is how often kinds that are not installed are looked for.
const lookAgain = 30 * time.Second

var crds = schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}

// Optional has kinds of policies watched that are others', as soon as they are installed. Their definitions are read with
// live, and found is called for each that is there. Call it before Start.
//
// +kubebuilder:rbac:groups=apiextensions.k8s.io,resources=customresourcedefinitions,resourceNames=clusternetworkpolicies.policy.networking.k8s.io;ciliumnetworkpolicies.cilium.io;ciliumclusterwidenetworkpolicies.cilium.io,verbs=get
func (o *Observer) Optional(live client.Reader, found ...func(v1alpha1.PolicyKind) error) {
	o.live, o.found = live, found
}

// Request has kinds of policies read, too, that somebody else may enforce. Call it before Start.
func (o *Observer) Request() { o.requested = true }

// installed says whether the API server serves a kind. The definition is asked for, not discovery, which leaves kinds out
// while an API server starts: policies that seem to be gone would be taken from the agents.
func (o *Observer) installed(ctx context.Context, kind v1alpha1.PolicyKind) (bool, error) {
	if kind.CRD == "" {
		return true, nil
	}
	if o.live == nil {
		return false, nil
	}
	crd := &unstructured.Unstructured{}
	crd.SetGroupVersionKind(crds)
	err := o.live.Get(ctx, client.ObjectKey{Name: kind.CRD}, crd)
	switch {
	case apierrors.IsNotFound(err), meta.IsNoMatchError(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read CustomResourceDefinition %s: %w", kind.CRD, err)
	}
	versions, _, err := unstructured.NestedSlice(crd.Object, "spec", "versions")
	if err != nil {
		return false, fmt.Errorf("read CustomResourceDefinition %s: %w", kind.CRD, err)
	}
	for _, v := range versions {
		if m, ok := v.(map[string]any); ok && m["name"] == kind.GroupVersion.Version && m["served"] == true {
			return true, nil
		}
	}
	return false, nil
}

// addInstalled notes which kinds of policies are to be watched, and returns those that are not installed.
func (o *Observer) addInstalled(ctx context.Context) (missing []v1alpha1.PolicyKind, err error) {
	for _, kind := range v1alpha1.PolicyKinds() {
		if kind.OnRequest && !o.requested {
			continue
		}
		is, err := o.installed(ctx, kind)
		if err != nil {
			return nil, err
		}
		if !is {
			o.log.Info("a kind of policies is not installed, and watched once it is", "kind", kind.Name, "version", kind.GroupVersion, "definition", kind.CRD)
			missing = append(missing, kind)
			continue
		}
		if err := o.announce(kind); err != nil {
			return nil, err
		}
		o.kinds = append(o.kinds, kind)
	}
	return missing, nil
}

func (o *Observer) announce(kind v1alpha1.PolicyKind) error {
	if kind.CRD == "" {
		return nil
	}
	for _, found := range o.found {
		if err := found(kind); err != nil {
			return fmt.Errorf("follow %s: %w", kind.Name, err)
		}
	}
	return nil
}

// addLater has kinds watched that are installed while the operator runs.
func (o *Observer) addLater(ctx context.Context, missing []v1alpha1.PolicyKind) {
	if o.live == nil {
		return
	}
	for len(missing) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookAgain):
		}
		missing = o.addFound(ctx, missing)
	}
}

// addFound has kinds watched that are installed by now, and returns the others.
func (o *Observer) addFound(ctx context.Context, missing []v1alpha1.PolicyKind) (rest []v1alpha1.PolicyKind) {
	for _, kind := range missing {
		is, err := o.installed(ctx, kind)
		if err == nil && is {
			_, err = o.watch(ctx, o.policies(kind))
		}
		if err == nil && is {
			err = o.announce(kind)
		}
		switch {
		case err != nil:
			o.log.Warn("follow a kind of policies; trying again", "kind", kind.Name, "error", err)
		case is:
			o.log.Info("a kind of policies has been installed, and is watched from now on", "kind", kind.Name)
			continue
		}
		rest = append(rest, kind)
	}
	return rest
}
