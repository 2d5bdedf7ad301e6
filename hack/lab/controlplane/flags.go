// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"fmt"

	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
)

func (cp *ControlPlane) etcd(tools *toolchain.Cache) []string {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return []string{
		tools.Program("etcd"), "--name=" + cp.cluster.Name, "--data-dir=" + cp.file("etcd"),
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=" + cp.cluster.Name + "=" + peer,
		// Nothing here has to survive a power cut, and a slow disk would
		// make every object slow.
		"--unsafe-no-fsync",
		"--log-level=warn",
	}
}

func (cp *ControlPlane) apiserver(tools *toolchain.Cache) []string {
	c := cp.cluster
	pki := func(name string) string { return cp.file("pki", name) }
	return []string{
		tools.Program("kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=::", "--secure-port=6443", "--advertise-address=" + c.Router4.Addr().String(),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--service-account-key-file=" + pki("sa.key"), "--service-account-signing-key-file=" + pki("sa.key"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		fmt.Sprintf("--service-cluster-ip-range=%s,%s", c.Svc4, c.Svc6),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--kubelet-client-certificate=" + pki("kubelet-client.crt"), "--kubelet-client-key=" + pki("kubelet-client.key"),
		"--kubelet-certificate-authority=" + pki("ca.crt"),
		// Nodes' names resolve nowhere.
		"--kubelet-preferred-address-types=InternalIP",
		"--requestheader-client-ca-file=" + pki("ca.crt"),
		// The authority above also signs ordinary clients: without this any
		// of them could speak for others.
		"--requestheader-allowed-names=front-proxy",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pki("front-proxy.crt"), "--proxy-client-key-file=" + pki("front-proxy.key"),
		// No kube-proxy runs beside the API server: it calls webhooks at
		// their pods' addresses, which the router knows the way to.
		"--enable-aggregator-routing=true",
	}
}

func (cp *ControlPlane) controllerManager(tools *toolchain.Cache) []string {
	c := cp.cluster
	return append([]string{
		tools.Program("kube-controller-manager"),
		"--service-account-private-key-file=" + cp.file("pki", "sa.key"), "--root-ca-file=" + cp.CA(),
		"--cluster-signing-cert-file=" + cp.CA(), "--cluster-signing-key-file=" + cp.file("pki", "ca.key"),
		"--use-service-account-credentials", "--controller-start-interval=0",
		"--allocate-node-cidrs", fmt.Sprintf("--cluster-cidr=%s,%s", c.Pods4, c.Pods6),
		"--node-cidr-mask-size-ipv4=24", "--node-cidr-mask-size-ipv6=64",
		fmt.Sprintf("--service-cluster-ip-range=%s,%s", c.Svc4, c.Svc6),
	}, cp.component("controller-manager")...)
}

func (cp *ControlPlane) scheduler(tools *toolchain.Cache) []string {
	return append([]string{tools.Program("kube-scheduler")}, cp.component("scheduler")...)
}

// component lists the flags that both clients of the API server take.
func (cp *ControlPlane) component(name string) []string {
	config := cp.file(name + ".kubeconfig")
	return []string{
		"--kubeconfig=" + config, "--authentication-kubeconfig=" + config, "--authorization-kubeconfig=" + config,
		"--bind-address=127.0.0.1", "--leader-elect=false",
	}
}
