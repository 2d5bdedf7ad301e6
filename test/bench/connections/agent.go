// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/relay"
	relayv1 "github.com/fairlead-mesh/fairlead/mesh/relay/v1"
	"github.com/fairlead-mesh/fairlead/nodeagent/agent"
	"github.com/fairlead-mesh/fairlead/nodeagent/apply/endpoints"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/datapath"
	"github.com/fairlead-mesh/fairlead/nodeagent/kernel/links"
)

const (
	cluster   = "home"
	nodeName  = "n1"
	clusterID = 1
	clientID  = clusterID<<16 | 256
	serverID  = clusterID<<16 | 257
)

// limit only ends a run that would never end.
const limit = time.Minute

// runAgent runs the node agent with the kernel's real maps and programs, and gives how long the services took from its
// relay to the kernel.
func runAgent(cfg NodeConfig) (time.Duration, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	d, err := datapath.Open(datapath.Config{Dir: cfg.Pins, Log: log})
	if err != nil {
		return 0, fmt.Errorf("open the datapath: %w", err)
	}
	drivers := agent.OfDatapath(d, cfg.Setup.Cgroup)
	drivers.Links = endpoints.Links(endpoints.Kernel{NodeAddresses: func() []netip.Addr { return []netip.Addr{nodeAddress} }})
	if !cfg.Setup.Policy {
		drivers.Links = noPods{drivers.Links}
	}
	hub := relay.NewHub(relay.DefaultHistory)
	listener := bufconn.Listen(1 << 20)
	server := relay.NewServer(hub, relay.ServerConfig{
		Authenticate: func(_ context.Context, token string) (string, error) { return token, nil }, Logger: log,
	})
	go func() { _ = server.Serve(context.Background(), listener, nil) }()
	a := agent.New(agent.Config{Node: nodeName, Version: "bench", RelayTimeout: time.Second, EventsPerTick: 1000, Log: log}, drivers,
		relay.NewClient(relay.ClientConfig{
			Targets: []string{"relay:4240"}, Node: nodeName, Logger: log,
			Token: func(context.Context) (string, error) { return nodeName, nil },
			Dial:  func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) },
		}))
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background(), "") }()

	if err := put(hub, base(cfg.Setup)); err != nil {
		return 0, err
	}
	hub.SetClusters([]*relayv1.ClusterState{{Name: cluster, Synced: true, Local: true}})
	if err := applied(a, hub, ended); err != nil {
		return 0, err
	}
	start := time.Now()
	if err := put(hub, serviceRecords(cfg.Setup.Services)); err != nil {
		return 0, err
	}
	err = applied(a, hub, ended)
	return time.Since(start), err
}

// applied waits until the agent's kernel holds all that the hub has.
func applied(a *agent.Agent, hub *relay.Hub, ended <-chan error) error {
	at := hub.At()
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		s := a.Synced()
		if s.Applied.Epoch == at.GetEpoch() && s.Applied.Revision >= at.GetRevision() && s.Sockets == nil {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("the agent ended: %w", err)
		default:
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("the agent has applied %+v of %v within %s", s.Applied, at, limit), s.Sockets)
		}
	}
}

func put(hub *relay.Hub, recs []*recordv1.Record) error {
	var changes []*relayv1.Change
	for _, rec := range recs {
		key, err := record.Key(rec)
		if err != nil {
			return fmt.Errorf("key a record: %w", err)
		}
		changes = append(changes, &relayv1.Change{Key: key, Record: rec})
	}
	return hub.Apply(changes)
}

// base is the node, its two pods and the policies about them. Pods of one node meet no tunnel, so there is none.
func base(w Setup) []*recordv1.Record {
	recs := []*recordv1.Record{
		{Cluster: cluster, Payload: &recordv1.Record_ClusterInfo{ClusterInfo: &recordv1.Cluster{
			Name: cluster, Id: clusterID, MeshId: "bench", PodCidrs: []string{pods.String()}, ServiceCidrs: []string{"10.96.0.0/12"},
			Labels: map[string]string{identity.LabelCluster: cluster}, Encryption: &recordv1.Encryption{Mode: "None", Scope: "InterCluster"},
		}}},
		{Cluster: cluster, Payload: &recordv1.Record_Node{Node: &recordv1.Node{
			Name: nodeName, Addresses: []string{nodeAddress.String()}, PodCidrs: []string{pods.String()}, PodsInPodCidrs: true,
		}}},
	}
	for _, p := range []struct {
		name string
		id   uint32
		addr netip.Prefix
	}{{"client", clientID, clientPod}, {"server", serverID, serverPod}} {
		recs = append(recs,
			&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Identity{Identity: &recordv1.Identity{
				Id: p.id, Labels: identity.PodLabels(cluster, "shop", "default", map[string]string{"app": p.name}, nil),
			}}},
			&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Endpoint{Endpoint: &recordv1.Endpoint{
				Namespace: "shop", Name: p.name, Node: nodeName, Identity: p.id, Addresses: []string{p.addr.Addr().String()},
			}}})
	}
	if w.Policy {
		recs = append(recs, policy("server", "Ingress", "ingress", "from", "client"), policy("client", "Egress", "egress", "to", "server"))
	}
	return recs
}

// policy isolates a pod in one direction but for one peer and port.
func policy(app, typ, field, side, peer string) *recordv1.Record {
	type m = map[string]any
	selector := func(app string) m { return m{"matchLabels": m{"app": app}} }
	spec, err := json.Marshal(m{
		"podSelector": selector(app), "policyTypes": []string{typ},
		field: []m{{side: []m{{"podSelector": selector(peer)}}, "ports": []m{{"protocol": "TCP", "port": backendPort}}}},
	})
	if err != nil {
		panic(fmt.Sprintf("encode a policy made of constants: %v", err))
	}
	return &recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Policy{Policy: &recordv1.Policy{
		Kind: "NetworkPolicy", Namespace: "shop", Name: app, SpecJson: spec, Generation: 1,
	}}}
}

func serviceRecords(n int) []*recordv1.Record {
	var recs []*recordv1.Record
	for i := range n {
		name := fmt.Sprintf("svc-%d", i)
		recs = append(recs,
			&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_Service{Service: &recordv1.Service{
				Namespace: "shop", Name: name, ClusterIps: []string{frontend(i).String()},
				Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: 80}},
			}}},
			&recordv1.Record{Cluster: cluster, Payload: &recordv1.Record_BackendSlice{BackendSlice: &recordv1.BackendSlice{
				Namespace: "shop", Service: name, Name: name, Ports: []*recordv1.ServicePort{{Name: "http", Protocol: "TCP", Port: backendPort}},
				Backends: []*recordv1.Backend{{Addresses: []string{serverPod.Addr().String()}, Ready: true, Serving: true, Node: nodeName}},
			}}})
	}
	return recs
}

// noPods is a node on which no pod gets programs: only sockets are translated.
type noPods struct{ endpoints.Links }

func (noPods) HostSide(addr netip.Addr) (links.Link, error) {
	return links.Link{}, fmt.Errorf("%w for %s: this setup wants none", links.ErrNotFound, addr)
}
