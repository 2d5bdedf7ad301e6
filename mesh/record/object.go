// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"fmt"
	"strings"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Object is a record's payload, parsed: addresses, ports and enumerations are values of their own types, so that nothing
// behind Parse reads text again. Objects are shared between goroutines and never changed.
type Object interface {
	// Kind is one of the Kind constants.
	Kind() string
	// path is what follows the kind in the object's key. It fails if a name is not a valid one.
	path() (string, error)
	// check holds the object against what the reading cluster allows the writing cluster to claim.
	check(Claim) error
}

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

// kinds is every kind, in the order in which records depend on each other: what is named comes before what names it.
// A new kind is one line here and in payload, beside the file that describes it.
var kinds = []string{KindCluster, KindIdentity, KindNode, KindEndpoint, KindService, KindSlice, KindPolicy}

// payload reads the payload into its type, without a look at what the values mean. It returns nil for a payload that this
// version doesn't know.
func payload(rec *recordv1.Record) reader {
	switch p := rec.GetPayload().(type) {
	case *recordv1.Record_ClusterInfo:
		return clusterReader{p.ClusterInfo}
	case *recordv1.Record_Node:
		return nodeReader{p.Node}
	case *recordv1.Record_Identity:
		return identityReader{p.Identity}
	case *recordv1.Record_Endpoint:
		return endpointReader{p.Endpoint}
	case *recordv1.Record_Service:
		return serviceReader{p.Service}
	case *recordv1.Record_BackendSlice:
		return sliceReader{p.BackendSlice}
	case *recordv1.Record_Policy:
		return policyReader{p.Policy}
	}
	return nil
}

// reader is a payload as it is encoded.
type reader interface {
	// names is the object with nothing but its names: what its key is made of.
	names() Object
	// parse reads everything.
	parse() (Object, error)
}

var errUnknownPayload = reject(ReasonUnknownPayload, "payload", "record carries no payload that this version knows")

// Parse reads a record's payload. Its error is an *Error that names the field. A record that parses is well formed; what
// its writer may claim is checked by Validate.
func Parse(rec *recordv1.Record) (Object, error) {
	r := payload(rec)
	if r == nil {
		return nil, errUnknownPayload
	}
	return r.parse()
}

// Kinds lists every kind in the order in which records depend on each other: what is named comes before what names it.
func Kinds() []string { return append([]string(nil), kinds...) }

// Rank gives the place in Kinds of the kind of record that a key names. Whoever passes records on in the order of their
// ranks, and removals in the reverse order, never names a record that the receiver lacks. A key that names no record has
// the rank after the last.
func Rank(key string) int { return rank(Kind(key)) }

func rank(kind string) int {
	for i, k := range kinds {
		if k == kind {
			return i
		}
	}
	return len(kinds)
}

// Key computes where a record lies, from its payload alone, so a payload can't hide under another object's name.
// It fails if a name that goes into the key is not a valid one.
func Key(rec *recordv1.Record) (string, error) {
	if err := checkClusterName("cluster", rec.GetCluster()); err != nil {
		return "", err
	}
	r := payload(rec)
	if r == nil {
		return "", errUnknownPayload
	}
	return KeyOf(rec.GetCluster(), r.names())
}

// KeyOf computes where an object of a cluster lies.
func KeyOf(cluster string, o Object) (string, error) {
	path, err := o.path()
	if err != nil {
		return "", err
	}
	if path == "" {
		return cluster + "/" + o.Kind(), nil
	}
	return cluster + "/" + o.Kind() + "/" + path, nil
}

// NodeKey is the key of a node's record.
func NodeKey(cluster, node string) string { return cluster + "/" + KindNode + "/" + node }

// PolicyKey is the key of a policy's record. The namespace is empty for cluster-scoped kinds.
func PolicyKey(cluster, kind, namespace, name string) (string, error) {
	return KeyOf(cluster, &Policy{PolicyKind: kind, Namespace: namespace, Name: name})
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
	if rank(kind) == len(kinds) || (kind == KindCluster) == deeper || deeper && tail == "" {
		return ""
	}
	return kind
}

// Validate decides whether a record found under a key may be used. The first thing wrong with it comes back as an *Error.
func Validate(key string, rec *recordv1.Record, claim Claim) error {
	_, err := Judge(key, rec, claim)
	return err
}

// Judge is Validate that also gives the object.
func Judge(key string, rec *recordv1.Record, claim Claim) (Object, error) {
	if ClusterOf(key) != claim.Name {
		return nil, reject(ReasonWrongCluster, "", "key %q lies outside the prefix of %s", short(key), claim.Name)
	}
	if rec.GetCluster() != claim.Name {
		return nil, reject(ReasonWrongCluster, "cluster", "record under %s says it is of %q", claim.Name, short(rec.GetCluster()))
	}
	own, err := Key(rec)
	if err != nil {
		return nil, err
	}
	if own != key {
		return nil, reject(ReasonKeyMismatch, "", "payload belongs under %q", short(own))
	}
	o, err := Parse(rec)
	if err != nil {
		return nil, err
	}
	if err := o.check(claim); err != nil {
		return nil, err
	}
	return o, nil
}

// As reads a record as an object of one type, for callers that know what lies under its key.
func As[T Object](rec *recordv1.Record) (T, error) {
	var none T
	o, err := Parse(rec)
	if err != nil {
		return none, err
	}
	t, ok := o.(T)
	if !ok {
		return none, fmt.Errorf("record is of kind %s, not %s", o.Kind(), none.Kind())
	}
	return t, nil
}
