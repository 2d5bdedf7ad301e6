// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/cache/informertest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// definitions answers for the one definition that is asked for.
type definitions struct {
	client.Reader
	versions []any // nil: not installed
	err      error
}

func (d *definitions) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	u, ok := o.(*unstructured.Unstructured)
	switch {
	case d.err != nil:
		return d.err
	case !ok || key.Name != "clusternetworkpolicies.policy.networking.k8s.io" || d.versions == nil:
		return apierrors.NewNotFound(schema.GroupResource{Resource: "customresourcedefinitions"}, key.Name)
	}
	u.Object["spec"] = map[string]any{"versions": d.versions}
	return nil
}

func version(name string, served bool) any { return map[string]any{"name": name, "served": served} }

func newObserver(t *testing.T, d *definitions) (o *Observer, found *[]string) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := errors.Join(v1alpha1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	o = New(&informertest.FakeInformers{Scheme: scheme}, "test", slog.New(slog.DiscardHandler))
	found = &[]string{}
	o.Optional(d, func(k v1alpha1.PolicyKind) error { *found = append(*found, k.Name); return nil })
	return o, found
}

func TestOptionalKindsAreWatchedIfServed(t *testing.T) {
	all := len(v1alpha1.PolicyKinds()) - 2 // Cilium's are read on request
	for _, tt := range []struct {
		name     string
		versions []any
		watched  bool
	}{
		{"not installed", nil, false},
		{"served", []any{version("v1beta1", true), version("v1alpha2", true)}, true},
		{"not served any more", []any{version("v1beta1", true), version("v1alpha2", false)}, false},
		{"another version", []any{version("v1beta1", true)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, found := newObserver(t, &definitions{versions: tt.versions})
			missing, err := o.addInstalled(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			want := all
			if !tt.watched {
				want--
			}
			if len(o.kinds) != want || len(missing) != all-want || len(*found) != want-all+1 {
				t.Errorf("watched are %d, missing %d, found %v", len(o.kinds), len(missing), *found)
			}
		})
	}
}

// An API server that can't say whether a kind is there must not make its policies seem to be gone.
func TestNoAnswerAboutAKindIsAnError(t *testing.T) {
	o, _ := newObserver(t, &definitions{err: errors.New("down")})
	if _, err := o.addInstalled(t.Context()); err == nil {
		t.Error("it is taken for not installed")
	}
}

func TestKindsAreFoundLater(t *testing.T) {
	d := &definitions{}
	o, found := newObserver(t, d)
	missing, err := o.addInstalled(t.Context())
	if err != nil || len(missing) != 1 {
		t.Fatalf("missing are %v, %v", missing, err)
	}
	if missing = o.addFound(t.Context(), missing); len(missing) != 1 || len(*found) != 0 {
		t.Errorf("nothing was installed, and missing are %v, found %v", missing, *found)
	}
	d.err = errors.New("down")
	if missing = o.addFound(t.Context(), missing); len(missing) != 1 {
		t.Error("a kind is given up because the API server was down")
	}
	d.versions, d.err = []any{version("v1alpha2", true)}, nil
	if missing = o.addFound(t.Context(), missing); len(missing) != 0 || len(*found) != 1 {
		t.Errorf("installed, and missing are %v, found %v", missing, *found)
	}
}

// Cilium's kinds are not even looked for unless that is asked for: Cilium may enforce them here.
func TestSomeKindsAreReadOnRequest(t *testing.T) {
	asked := func(missing []v1alpha1.PolicyKind) (n int) {
		for _, kind := range missing {
			if kind.OnRequest {
				n++
			}
		}
		return n
	}
	for requested, want := range map[bool]int{false: 0, true: 2} {
		o, _ := newObserver(t, &definitions{})
		if requested {
			o.Request()
		}
		missing, err := o.addInstalled(t.Context())
		if got := asked(missing); err != nil || got != want || asked(o.kinds) != 0 {
			t.Errorf("requested %t: %d are looked for, want %d; %v", requested, got, want, err)
		}
	}
}
