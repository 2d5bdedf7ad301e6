// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package hub runs what the clusters share and none of them owns: the shared
// etcd, in which each cluster has a user of its own, and a Git server. Both
// live in the hub namespace, at addresses of their own.
package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/hack/lab/netlab"
	"github.com/fairlead-mesh/fairlead/hack/lab/pki"
	"github.com/fairlead-mesh/fairlead/hack/lab/process"
	"github.com/fairlead-mesh/fairlead/hack/lab/toolchain"
	"github.com/fairlead-mesh/fairlead/hack/lab/topology"
)

// Prefix is the part of the shared etcd that belongs to the mesh.
const Prefix = "/fairlead/v1/"

// Hub is the hub of one instance.
type Hub struct {
	instance *topology.Instance
	dir      string
	lab      string // the lab's own program, which serves Git
}

// Open names the hub with its files in dir.
func Open(in *topology.Instance, dir, labProgram string) *Hub {
	return &Hub{instance: in, dir: dir, lab: labProgram}
}

func (h *Hub) file(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *Hub) process(name string, argv ...string) process.Spec {
	return process.Spec{
		Name: name, Dir: h.file("run"), Argv: argv,
		Where:  process.Where{NetNS: netlab.Path(h.instance.NetNS(topology.Hub))},
		Cgroup: h.instance.Cgroup(topology.Hub),
	}
}

// Etcd is the shared etcd's process.
func (h *Hub) Etcd(tools *toolchain.Cache) process.Spec {
	urls := []string{topology.EtcdURL, "https://[" + topology.HubEtcd6.Addr().String() + "]:2379",
		"https://" + h.instance.UplinkEtcd().String() + ":2379"}
	const peer = "http://127.0.0.1:2380"
	return h.process("etcd", tools.Program("etcd"), "--name=hub", "--data-dir="+h.file("etcd"),
		"--listen-client-urls="+strings.Join(urls, ","), "--advertise-client-urls="+urls[0],
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=hub="+peer,
		"--client-cert-auth", "--trusted-ca-file="+h.file("pki", "ca.crt"),
		"--cert-file="+h.file("pki", "server.crt"), "--key-file="+h.file("pki", "server.key"),
		"--unsafe-no-fsync", "--log-level=warn")
}

// UpEtcd starts the shared etcd if it does not run and makes sure that every
// cluster has its user, its role and its certificate.
func (h *Hub) UpEtcd(ctx context.Context, tools *toolchain.Cache) error {
	ca, err := pki.Open(h.file("pki"), "fairlead-hub-ca")
	if err != nil {
		return err
	}
	// The server's certificate bears no common name: etcd would take it for
	// a user's.
	addrs := []netip.Addr{topology.HubEtcd4.Addr(), topology.HubEtcd6.Addr(), h.instance.UplinkEtcd()}
	if _, _, err := ca.Issue("server", pki.Subject{Names: []string{"etcd.hub"}, Addrs: addrs}); err != nil {
		return err
	}
	users := []string{"root"}
	for _, c := range h.instance.Clusters {
		users = append(users, c.Name)
	}
	for _, u := range users {
		if _, _, err := ca.Issue(u, pki.Subject{CommonName: u}); err != nil {
			return err
		}
	}
	spec := h.Etcd(tools)
	if _, err := process.Start(spec); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	ctl := h.etcdctl(tools)
	var have string
	err = spec.Wait(ctx, func(ctx context.Context) error {
		have, err = ctl(ctx, "user", "list")
		return err
	})
	if err != nil {
		return err
	}
	if err := grantUsers(ctx, ctl, users, strings.Fields(have)); err != nil {
		return fmt.Errorf("set up the shared etcd's users: %w", err)
	}
	return nil
}

// grantUsers adds the users that are missing. Each cluster may write below
// its own prefix and read everybody's.
func grantUsers(ctx context.Context, ctl ctlFunc, users, have []string) error {
	for _, user := range users {
		// The user comes last, so that one that is there is complete.
		if slices.Contains(have, user) {
			continue
		}
		role := "member-" + user
		steps := [][]string{
			{"role", "add", role},
			{"role", "grant-permission", role, "--prefix=true", "read", Prefix},
			{"role", "grant-permission", role, "--prefix=true", "readwrite", Prefix + user + "/"},
			{"user", "add", user, "--no-password"},
			{"user", "grant-role", user, role},
		}
		if user == "root" {
			steps = [][]string{{"user", "add", user, "--no-password"}, {"user", "grant-role", user, "root"}}
		}
		for _, step := range steps {
			if _, err := ctl(ctx, step...); err != nil && !strings.Contains(err.Error(), "already exists") {
				return err
			}
		}
	}
	_, err := ctl(ctx, "auth", "enable")
	return err
}

type ctlFunc func(ctx context.Context, args ...string) (string, error)

// etcdctl runs etcdctl as root. It connects from the root namespace.
func (h *Hub) etcdctl(tools *toolchain.Cache) ctlFunc {
	return func(ctx context.Context, args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, tools.Program("etcdctl"), append([]string{
			"--endpoints=https://" + h.instance.UplinkEtcd().String() + ":2379", "--cacert=" + h.file("pki", "ca.crt"),
			"--cert=" + h.file("pki", "root.crt"), "--key=" + h.file("pki", "root.key"), "--command-timeout=3s",
		}, args...)...)
		var out, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &stderr
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("etcdctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
		}
		return out.String(), nil
	}
}

// exists tells whether the path is there.
func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist)
}
