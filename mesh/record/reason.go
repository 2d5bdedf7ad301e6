// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"
)

// Reason says in one word why a record was refused. Reasons are stable: they become condition texts and metric labels.
type Reason string

// Reasons for refusing a record.
const (
	ReasonMalformed          Reason = "Malformed"            // not a record at all
	ReasonTooLarge           Reason = "TooLarge"             // more than MaxSize bytes, or too much in one field
	ReasonUnknownPayload     Reason = "UnknownPayload"       // a kind that this version doesn't know
	ReasonInvalidName        Reason = "InvalidName"          // a name that Kubernetes would not allow either
	ReasonKeyMismatch        Reason = "KeyMismatch"          // the payload belongs under another key
	ReasonWrongCluster       Reason = "WrongCluster"         // speaks for another cluster
	ReasonWrongMesh          Reason = "WrongMesh"            // speaks for another mesh
	ReasonIdentityOutOfRange Reason = "IdentityOutOfRange"   // an identity number that is not the cluster's
	ReasonInvalidLabels      Reason = "InvalidLabels"        // labels missing, too many, or naming another cluster
	ReasonInvalidAddress     Reason = "InvalidAddress"       // not an address or CIDR in its canonical form
	ReasonAddressOutside     Reason = "AddressOutsideClaim"  // outside the pod CIDRs the cluster may use
	ReasonNodeAddress        Reason = "NodeAddressForbidden" // a node address that would capture other traffic
	ReasonInvalidKey         Reason = "InvalidWireGuardKey"  // not a usable public key
	ReasonInvalidPort        Reason = "InvalidPort"          // port or protocol out of range
	ReasonInvalidPolicy      Reason = "InvalidPolicy"        // not a policy that could be compiled
	ReasonNamespace          Reason = "NamespaceNotExported" // namespace not on the allowlist
	ReasonDuplicate          Reason = "Duplicate"            // another node holds this key already; the reader finds that beside all records
)

// Error is a refusal: why, at which field, and what was found there.
type Error struct {
	Reason Reason
	Field  string // as in the protobuf, such as "node.addresses"; empty when the whole record is meant
	Detail string
}

// Error reads as "Reason: field: detail".
func (e *Error) Error() string {
	if e.Field == "" {
		return string(e.Reason) + ": " + e.Detail
	}
	return string(e.Reason) + ": " + e.Field + ": " + e.Detail
}

// Is matches another *Error by reason, so that errors.Is(err, &Error{Reason: …}) works.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Reason == e.Reason && t.Field == "" && t.Detail == ""
}

// ReasonOf gives the reason of a refusal, or Malformed for an error of another type.
func ReasonOf(err error) Reason {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Reason
	}
	return ReasonMalformed
}

func reject(reason Reason, field, format string, args ...any) error {
	return &Error{Reason: reason, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// short keeps foreign text from flooding logs and conditions.
func short(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}
