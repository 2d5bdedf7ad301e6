// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	npav1alpha2 "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/fairlead-mesh/fairlead/api/ciliumv2"
	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/operator/observe"
)

// kube is a cluster's Kubernetes API in memory, with a cache over it whose informers are told of each write before the
// write returns. It has no controllers: what a story doesn't write isn't there.
type kube struct {
	client.WithWatch
	scheme *runtime.Scheme

	mu       sync.Mutex // held from a write until everybody was told of it
	objects  map[reflect.Type]map[client.ObjectKey]client.Object
	handlers map[reflect.Type][]toolscache.ResourceEventHandler
	writes   int
}

func newKube() *kube {
	k := &kube{
		scheme:   runtime.NewScheme(),
		objects:  map[reflect.Type]map[client.ObjectKey]client.Object{},
		handlers: map[reflect.Type][]toolscache.ResourceEventHandler{},
	}
	utilruntime.Must(clientgoscheme.AddToScheme(k.scheme))
	utilruntime.Must(v1alpha1.AddToScheme(k.scheme))
	utilruntime.Must(apiextensionsv1.AddToScheme(k.scheme))
	k.WithWatch = fake.NewClientBuilder().WithScheme(k.scheme).
		WithStatusSubresource(&v1alpha1.ClusterMesh{}, &v1alpha1.MeshCluster{}, &v1alpha1.MeshNode{},
			&v1alpha1.MeshNetworkPolicy{}, &v1alpha1.ClusterMeshNetworkPolicy{}, &v1alpha1.PolicySource{}, &npav1alpha2.ClusterNetworkPolicy{},
			&ciliumv2.CiliumNetworkPolicy{}, &ciliumv2.CiliumClusterwideNetworkPolicy{}).
		WithReturnManagedFields().WithInterceptorFuncs(k.interceptors()).Build()
	return k
}

// interceptors tell the informers of what was written.
func (k *kube) interceptors() interceptor.Funcs {
	return interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return k.write(ctx, c, o, func() error { return c.Create(ctx, o, opts...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			return k.write(ctx, c, o, func() error { return c.Update(ctx, o, opts...) })
		},
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return k.write(ctx, c, o, func() error { return c.Patch(ctx, o, p, opts...) })
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			object, ok := o.(client.Object)
			if !ok {
				return fmt.Errorf("apply %T: it is no object", o)
			}
			return k.write(ctx, c, object, func() error { return c.Apply(ctx, o, opts...) })
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			return k.write(ctx, c, o, func() error { return c.Delete(ctx, o, opts...) })
		},
		SubResourcePatch: func(ctx context.Context, c client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
			return k.write(ctx, c, o, func() error { return c.SubResource(sub).Patch(ctx, o, p, opts...) })
		},
	}
}

func (k *kube) write(ctx context.Context, c client.Client, o client.Object, write func() error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now, err := k.typed(o)
	if err != nil {
		return err
	}
	kind, key := reflect.TypeOf(now), client.ObjectKeyFromObject(o)
	if err := write(); err != nil {
		return err
	}
	was := k.objects[kind][key]
	err = c.Get(ctx, key, now)
	if apierrors.IsNotFound(err) {
		if was == nil {
			return nil // a dry run of what isn't there
		}
		k.writes++
		delete(k.objects[kind], key)
		for _, h := range k.handlers[kind] {
			h.OnDelete(was)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if was != nil && was.GetResourceVersion() == now.GetResourceVersion() {
		return nil // a dry run, or an apply that changes nothing
	}
	if err := k.setGeneration(ctx, c, was, now); err != nil {
		return err
	}
	k.writes++
	// The operator's cache strips objects of what nobody reads; a story must not see more than a cluster would.
	if _, err := observe.Strip(now); err != nil {
		return err
	}
	if k.objects[kind] == nil {
		k.objects[kind] = map[client.ObjectKey]client.Object{}
	}
	k.objects[kind][key] = now
	for _, h := range k.handlers[kind] {
		if was == nil {
			h.OnAdd(now, false)
		} else {
			h.OnUpdate(was, now)
		}
	}
	return nil
}

// typed makes an empty object of the Go type that informers have for an object.
func (k *kube) typed(o client.Object) (client.Object, error) {
	gvk, err := apiutil.GVKForObject(o, k.scheme)
	if err != nil {
		return nil, err
	}
	typed, err := k.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	object, ok := typed.(client.Object)
	if !ok {
		return nil, fmt.Errorf("%s is no object", gvk)
	}
	return object, nil
}

// setGeneration counts changes of a spec, as an API server does and the client in memory doesn't. Of core kinds nobody
// reads it, and the cache strips their specs.
func (k *kube) setGeneration(ctx context.Context, c client.Client, was, now client.Object) error {
	if gvk, err := apiutil.GVKForObject(now, k.scheme); err != nil || gvk.Group == corev1.GroupName {
		return err
	}
	generation := int64(1)
	if was != nil {
		before, err := specOf(was)
		if err != nil {
			return err
		}
		after, err := specOf(now)
		if err != nil {
			return err
		}
		generation = was.GetGeneration()
		if !reflect.DeepEqual(before, after) {
			generation++
		}
	}
	if now.GetGeneration() == generation {
		return nil
	}
	now.SetGeneration(generation)
	return c.Update(ctx, now)
}

func specOf(o client.Object) (any, error) {
	u, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	return u["spec"], err
}

func (k *kube) written() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.writes
}

// forgetHandlers cuts off an operator that ended.
func (k *kube) forgetHandlers() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.handlers)
}

// apply creates or replaces every object of a YAML file. Unknown fields are errors: a typo must not become a story.
func (k *kube) apply(ctx context.Context, text string) error {
	objects, err := k.decode(text)
	if err != nil {
		return err
	}
	for _, o := range objects {
		err := k.Create(ctx, o)
		if apierrors.IsAlreadyExists(err) {
			err = k.replace(ctx, o)
		}
		if err != nil {
			return fmt.Errorf("apply %T %s: %w", o, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}

func (k *kube) replace(ctx context.Context, o client.Object) error {
	have, ok := reflect.New(reflect.TypeOf(o).Elem()).Interface().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object", o)
	}
	if err := k.Get(ctx, client.ObjectKeyFromObject(o), have); err != nil {
		return err
	}
	o.SetResourceVersion(have.GetResourceVersion())
	o.SetCreationTimestamp(have.GetCreationTimestamp())
	o.SetGeneration(have.GetGeneration())
	o.SetFinalizers(have.GetFinalizers())
	return k.Update(ctx, o)
}

// remove deletes every object of a YAML file.
func (k *kube) remove(ctx context.Context, text string) error {
	objects, err := k.decode(text)
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := k.Delete(ctx, o); err != nil {
			return fmt.Errorf("delete %T %s: %w", o, client.ObjectKeyFromObject(o), err)
		}
	}
	return nil
}

func (k *kube) decode(text string) ([]client.Object, error) {
	decoder := serializer.NewCodecFactory(k.scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
	var out []client.Object
	for {
		doc, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read YAML: %w", err)
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		o, _, err := decoder.Decode(doc, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("read object: %w\n%s", err, doc)
		}
		object, ok := o.(client.Object)
		if !ok {
			return nil, fmt.Errorf("%T is no object", o)
		}
		object.SetCreationTimestamp(metav1.NewTime(time.Now()))
		out = append(out, object)
	}
}

// secret is what an administrator would make for the operator.
func secret(namespace, name string, ca, cert, key []byte) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Data:       map[string][]byte{"ca.crt": ca, corev1.TLSCertKey: cert, corev1.TLSPrivateKeyKey: key},
	}
}

// kubeCache is a cache.Cache over a kube.
type kubeCache struct {
	client.Reader
	cache.Informers // what no part asks for
	kube            *kube
}

func (k *kube) cache() cache.Cache { return kubeCache{Reader: k, kube: k} }

func (c kubeCache) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return informer{kube: c.kube, kind: reflect.TypeOf(o)}, nil
}

func (c kubeCache) GetInformerForKind(_ context.Context, gvk schema.GroupVersionKind, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return nil, fmt.Errorf("no informer by kind (%s)", gvk)
}

func (c kubeCache) WaitForCacheSync(context.Context) bool { return true }

type informer struct {
	cache.Informer // what no part asks for
	kube           *kube
	kind           reflect.Type
}

func (i informer) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, _ toolscache.HandlerOptions) (toolscache.ResourceEventHandlerRegistration, error) {
	return i.AddEventHandler(h)
}

func (i informer) AddEventHandler(h toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	i.kube.mu.Lock()
	defer i.kube.mu.Unlock()
	for _, o := range i.kube.objects[i.kind] {
		h.OnAdd(o, true)
	}
	i.kube.handlers[i.kind] = append(i.kube.handlers[i.kind], h)
	return synced{}, nil
}

// synced is a registration whose objects were all delivered when it was made.
type synced struct{}

func (synced) HasSynced() bool                          { return true }
func (synced) HasSyncedChecker() toolscache.DoneChecker { return synced{} }
func (synced) Name() string                             { return "in memory" }
func (synced) Done() <-chan struct{}                    { c := make(chan struct{}); close(c); return c }
