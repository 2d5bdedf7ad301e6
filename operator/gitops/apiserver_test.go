// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	servertesting "k8s.io/apiextensions-apiserver/pkg/cmd/server/testing"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// kube is a client of an API server that serves our kinds (and no core ones), with real admission, server-side apply and
// dry-run. It lives as long as the test binary.
var kube client.Client

// known takes the place of discovery, which this small server does not offer.
var known = func() *meta.DefaultRESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"), meta.RESTScopeRoot)
	return m
}()

func TestMain(m *testing.M) {
	stop, err := startAPIServer()
	if err != nil {
		fmt.Fprintln(os.Stderr, "start an API server:", err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	os.Exit(code)
}

// bootLog takes what the API server's test helper says.
type bootLog struct{}

func (bootLog) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
func (bootLog) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (bootLog) Logf(string, ...any)               {}

func startAPIServer() (stop func(), err error) {
	dir, err := os.MkdirTemp("", "fairlead-gitops-")
	if err != nil {
		return nil, err
	}
	etcd, endpoint, err := startEtcd(dir)
	if err != nil {
		return nil, err
	}
	noKubeconfig := filepath.Join(dir, "kubeconfig")
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: none, cluster: {server: 'https://127.0.0.1:1'}}]\n" +
		"contexts: [{name: none, context: {cluster: none}}]\ncurrent-context: none\n"
	if err := os.WriteFile(noKubeconfig, []byte(text), 0o600); err != nil {
		return nil, err
	}
	server, err := servertesting.StartTestServer(bootLog{}, nil, []string{
		"--etcd-servers=" + endpoint, "--etcd-prefix=fairlead-gitops",
		"--authentication-skip-lookup", "--authentication-kubeconfig=" + noKubeconfig,
		"--authorization-kubeconfig=" + noKubeconfig, "--kubeconfig=" + noKubeconfig,
		"--enable-priority-and-fairness=false",
		"--disable-admission-plugins=NamespaceLifecycle,MutatingAdmissionWebhook,ValidatingAdmissionWebhook,ValidatingAdmissionPolicy,MutatingAdmissionPolicy",
	}, nil)
	if err != nil {
		return nil, err
	}
	stop = func() {
		server.TearDownFn()
		etcd.Close()
		os.RemoveAll(dir)
	}
	if kube, err = installKinds(server.ClientConfig); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func startEtcd(dir string) (*embed.Etcd, string, error) {
	cfg := embed.NewConfig()
	cfg.Dir = filepath.Join(dir, "etcd")
	cfg.LogLevel = "panic"
	cfg.UnsafeNoFsync = true
	urls := make([]url.URL, 2)
	for i := range urls {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		urls[i] = url.URL{Scheme: "http", Host: lis.Addr().String()}
		lis.Close()
	}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = urls[:1], urls[:1]
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = urls[1:], urls[1:]
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, "", err
	}
	select {
	case <-etcd.Server.ReadyNotify():
		return etcd, urls[0].String(), nil
	case <-time.After(time.Minute):
		etcd.Close()
		return nil, "", fmt.Errorf("etcd did not come up")
	}
}

func installKinds(cfg *rest.Config) (client.Client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType, cfg.AcceptContentTypes = "", ""
	cfg.QPS = -1
	scheme := runtime.NewScheme()
	if err := apiextensionsv1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme, Mapper: known})
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob("../../config/crd/fairlead.dev_*.yaml")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("find the CRDs: %v, %w", files, err)
	}
	others, err := filepath.Glob("../../test/crd/*.yaml")
	if err != nil || len(others) == 0 {
		return nil, fmt.Errorf("find others' CRDs: %v, %w", others, err)
	}
	for _, f := range append(files, others...) {
		if err := installKind(c, f); err != nil {
			return nil, fmt.Errorf("install %s: %w", f, err)
		}
	}
	return c, nil
}

func installKind(c client.Client, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	crd := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, crd); err != nil {
		return err
	}
	return install(c, crd)
}

func install(c client.Client, crd *apiextensionsv1.CustomResourceDefinition) error {
	ctx := context.Background()
	if err := c.Create(ctx, crd); err != nil {
		return err
	}
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(crd), crd); err != nil {
			return err
		}
		for _, cond := range crd.Status.Conditions {
			if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
				serve(crd)
				return nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("not established: %v", crd.Status.Conditions)
}

func serve(crd *apiextensionsv1.CustomResourceDefinition) {
	scope := meta.RESTScopeNamespace
	if crd.Spec.Scope == apiextensionsv1.ClusterScoped {
		scope = meta.RESTScopeRoot
	}
	for _, v := range crd.Spec.Versions {
		known.Add(schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}, scope)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
