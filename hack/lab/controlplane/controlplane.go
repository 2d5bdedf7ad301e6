// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane runs a cluster's Kubernetes control plane: etcd,
// kube-apiserver, kube-controller-manager and kube-scheduler, all in the
// cluster's router namespace. It owns the cluster's certificate authority and
// gives the nodes their identities.
package controlplane

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/pki"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// ControlPlane is the control plane of one cluster.
type ControlPlane struct {
	instance *topology.Instance
	cluster  *topology.Cluster
	dir      string // all its files
	ca       *pki.Authority
}

// Open prepares the control plane's certificates and kubeconfig files in dir.
func Open(in *topology.Instance, c *topology.Cluster, dir string) (*ControlPlane, error) {
	ca, err := pki.Open(filepath.Join(dir, "pki"), c.Name+"-ca")
	if err != nil {
		return nil, err
	}
	cp := &ControlPlane{instance: in, cluster: c, dir: dir, ca: ca}
	if err := cp.identities(); err != nil {
		return nil, fmt.Errorf("control plane of %s: %w", c.Name, err)
	}
	return cp, nil
}

func (cp *ControlPlane) file(parts ...string) string {
	return filepath.Join(append([]string{cp.dir}, parts...)...)
}

// CA is the file with the cluster's certificate authority.
func (cp *ControlPlane) CA() string { return cp.ca.CertFile() }

// Kubeconfig is the administrator's kubeconfig, for the root namespace.
func (cp *ControlPlane) Kubeconfig() string { return cp.file("admin.kubeconfig") }

func (cp *ControlPlane) identities() error {
	c := cp.cluster
	server := pki.Subject{
		CommonName: "kube-apiserver",
		Names:      []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		Addrs:      []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), c.Router4.Addr(), c.Router6.Addr(), c.API4, c.API6, c.Uplink},
	}
	masters := []string{"system:masters"}
	for name, s := range map[string]pki.Subject{
		"apiserver":      server,
		"kubelet-client": {CommonName: "kube-apiserver-kubelet-client", Organizations: masters},
		"front-proxy":    {CommonName: "front-proxy"},
	} {
		if _, _, err := cp.ca.Issue(name, s); err != nil {
			return err
		}
	}
	local := "https://127.0.0.1:6443"
	for name, k := range map[string]struct {
		subject pki.Subject
		server  string
	}{
		"admin":              {pki.Subject{CommonName: "admin", Organizations: masters}, c.UplinkAPIServer()},
		"controller-manager": {pki.Subject{CommonName: "system:kube-controller-manager"}, local},
		"scheduler":          {pki.Subject{CommonName: "system:kube-scheduler"}, local},
		"proxy":              {pki.Subject{CommonName: "system:kube-proxy"}, c.APIServer()},
	} {
		if err := cp.kubeconfig(cp.file(name+".kubeconfig"), name, k.subject, k.server); err != nil {
			return err
		}
	}
	return pki.EnsureKey(cp.file("pki", "sa.key"))
}

// NodeIdentity issues the node's certificate, by which it is known to the API
// server and the API server's connections know it, and writes its kubeconfig.
func (cp *ControlPlane) NodeIdentity(n *topology.Node, kubeconfig string) (cert, key string, err error) {
	s := pki.Subject{
		CommonName: "system:node:" + n.Name, Organizations: []string{"system:nodes"},
		Names: []string{n.Name}, Addrs: []netip.Addr{n.Addr4.Addr(), n.Addr6.Addr()},
	}
	if err := cp.kubeconfig(kubeconfig, n.Name, s, cp.cluster.APIServer()); err != nil {
		return "", "", err
	}
	return cp.ca.Issue(n.Name, s)
}

// ProxyKubeconfig is the kubeconfig of every kube-proxy.
func (cp *ControlPlane) ProxyKubeconfig() string { return cp.file("proxy.kubeconfig") }

func (cp *ControlPlane) process(name string, argv ...string) process.Spec {
	return process.Spec{
		Name: name, Dir: cp.file("run"), Argv: argv,
		Where:  process.Where{NetNS: netlab.Path(cp.instance.NetNS(cp.cluster.Name))},
		Cgroup: cp.instance.Cgroup(cp.cluster.Name),
	}
}

// Processes lists the control plane's processes in the order of their start.
func (cp *ControlPlane) Processes(tools *toolchain.Cache) []process.Spec {
	return []process.Spec{
		cp.process("etcd", cp.etcd(tools)...),
		cp.process("kube-apiserver", cp.apiserver(tools)...),
		cp.process("kube-controller-manager", cp.controllerManager(tools)...),
		cp.process("kube-scheduler", cp.scheduler(tools)...),
	}
}

// Up starts what does not run and waits until the API server serves and the
// controllers have begun their work.
func (cp *ControlPlane) Up(ctx context.Context, tools *toolchain.Cache) error {
	specs := cp.Processes(tools)
	for _, s := range specs[:2] {
		if _, err := process.Start(s); err != nil {
			return fmt.Errorf("cluster %s: %w", cp.cluster.Name, err)
		}
	}
	client, err := cp.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := specs[1].Wait(ctx, client.Ready); err != nil {
		return fmt.Errorf("cluster %s: %w", cp.cluster.Name, err)
	}
	for _, s := range specs[2:] {
		if _, err := process.Start(s); err != nil {
			return fmt.Errorf("cluster %s: %w", cp.cluster.Name, err)
		}
	}
	// The first thing to be seen of the controllers' work, and needed by
	// every pod.
	err = specs[2].Wait(ctx, func(ctx context.Context) error {
		return client.Get(ctx, "/api/v1/namespaces/kube-system/serviceaccounts/default", nil)
	})
	if err != nil {
		return fmt.Errorf("cluster %s: %w", cp.cluster.Name, err)
	}
	return nil
}
