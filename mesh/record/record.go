// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package record names, encodes and validates what clusters publish and what operators stream to their agents.
//
// Data flows through it twice. On the way out a payload becomes a Record, gets its key from the payload itself (Key) and
// is encoded the same way every time (Marshal), so that equal records have equal bytes and a publisher can compare bytes
// (Set, Diff). On the way in nothing is trusted: Unmarshal bounds the size, and Validate holds a record against what the
// reading cluster allows the writing cluster to claim. The package is pure.
package record

import (
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Kinds of records: the second part of a key.
const (
	KindCluster  = "cluster"
	KindNode     = "nodes"
	KindIdentity = "identities"
	KindEndpoint = "endpoints"
	KindService  = "services"
	KindSlice    = "slices"
	KindPolicy   = "policies"
)

// MaxSize bounds one encoded record. It keeps a hostile or broken writer from filling the memory of every node.
const MaxSize = 256 << 10

// Kinds lists every kind in the order in which records depend on each other: what is named comes before what names it.
func Kinds() []string {
	return []string{KindCluster, KindIdentity, KindNode, KindEndpoint, KindService, KindSlice, KindPolicy}
}

// Key computes where a record lies, from its payload alone, so a payload can't hide under another object's name.
// It fails if a name that goes into the key is not a valid one.
func Key(rec *recordv1.Record) (string, error) {
	cluster := rec.GetCluster()
	if err := checkClusterName("cluster", cluster); err != nil {
		return "", err
	}
	switch p := rec.GetPayload().(type) {
	case *recordv1.Record_ClusterInfo:
		return cluster + "/" + KindCluster, nil
	case *recordv1.Record_Node:
		return join(cluster, KindNode, name{"node.name", p.Node.GetName()})
	case *recordv1.Record_Identity:
		return cluster + "/" + KindIdentity + "/" + strconv.FormatUint(uint64(p.Identity.GetId()), 10), nil
	case *recordv1.Record_Endpoint:
		return joinNamespaced(cluster, KindEndpoint, "endpoint", p.Endpoint.GetNamespace(), p.Endpoint.GetName())
	case *recordv1.Record_Service:
		return joinNamespaced(cluster, KindService, "service", p.Service.GetNamespace(), p.Service.GetName())
	case *recordv1.Record_BackendSlice:
		return joinNamespaced(cluster, KindSlice, "backend_slice", p.BackendSlice.GetNamespace(), p.BackendSlice.GetName())
	case *recordv1.Record_Policy:
		return policyKey(cluster, p.Policy)
	default:
		return "", reject(ReasonUnknownPayload, "payload", "record carries no payload that this version knows")
	}
}

func policyKey(cluster string, p *recordv1.Policy) (string, error) {
	scoped, known := policyKinds[p.GetKind()]
	if !known {
		return "", reject(ReasonInvalidPolicy, "policy.kind", "unknown kind %q", short(p.GetKind()))
	}
	if err := checkSubdomain("policy.name", p.GetName()); err != nil {
		return "", err
	}
	namespace := p.GetNamespace()
	switch {
	case scoped == clusterScoped && namespace != "":
		return "", reject(ReasonInvalidPolicy, "policy.namespace", "%s has no namespace", p.GetKind())
	case scoped == clusterScoped:
		namespace = "-"
	default:
		if err := checkLabel("policy.namespace", namespace); err != nil {
			return "", err
		}
	}
	return strings.Join([]string{cluster, KindPolicy, p.GetKind(), namespace, p.GetName()}, "/"), nil
}

type name struct{ field, value string }

func join(cluster, kind string, n name) (string, error) {
	if err := checkSubdomain(n.field, n.value); err != nil {
		return "", err
	}
	return cluster + "/" + kind + "/" + n.value, nil
}

func joinNamespaced(cluster, kind, field, namespace, object string) (string, error) {
	if err := checkLabel(field+".namespace", namespace); err != nil {
		return "", err
	}
	if err := checkSubdomain(field+".name", object); err != nil {
		return "", err
	}
	return cluster + "/" + kind + "/" + namespace + "/" + object, nil
}

// ClusterOf gives the cluster a key belongs to: all before the first slash, so that "east" never matches "east-1/…".
func ClusterOf(key string) string {
	cluster, _, _ := strings.Cut(key, "/")
	return cluster
}

// Kind gives the kind of record a key names, one of the Kind constants, or "" for anything else.
func Kind(key string) string {
	_, rest, ok := strings.Cut(key, "/")
	if !ok {
		return ""
	}
	kind, tail, deeper := strings.Cut(rest, "/")
	switch kind {
	case KindCluster:
		if deeper {
			return ""
		}
		return kind
	case KindNode, KindIdentity, KindEndpoint, KindService, KindSlice, KindPolicy:
		if !deeper || tail == "" {
			return ""
		}
		return kind
	}
	return ""
}

// Marshal encodes a record. Equal records give equal bytes.
func Marshal(rec *recordv1.Record) ([]byte, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encode record of cluster %q: %w", rec.GetCluster(), err)
	}
	if len(data) > MaxSize {
		return nil, reject(ReasonTooLarge, "", "record has %d bytes, more than %d", len(data), MaxSize)
	}
	return data, nil
}

// Unmarshal decodes a record. Fields that this version doesn't know are dropped and not passed on: nobody here could
// have validated them.
func Unmarshal(data []byte) (*recordv1.Record, error) {
	if len(data) > MaxSize {
		return nil, reject(ReasonTooLarge, "", "record has %d bytes, more than %d", len(data), MaxSize)
	}
	rec := &recordv1.Record{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, rec); err != nil {
		return nil, reject(ReasonMalformed, "", "not a record: %v", err)
	}
	return rec, nil
}
