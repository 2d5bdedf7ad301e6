// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// contentSize is how much of the hash is kept. 128 bits: authors of policies can choose what is hashed.
const contentSize = 16

// Content identifies one state of one policy object. An object that was edited and edited back is another state of it,
// and one that was deleted and made again is another object: what a node reported of the one doesn't hold for the other. So it
// is with one that its namespace or its cluster has audited. Which of them does is all one.
func (p *Policy) Content() string {
	state := []string{"object", p.UID, strconv.FormatInt(p.Generation, 10), string(p.Spec)}
	if p.Mode.Audit() {
		state = append(state, string(v1alpha1.PolicyAudit))
	}
	return hashed(state...)
}

// SpecContent identifies what a policy's spec says, whoever wrote it. spec is JSON as encoding/json writes the kind's Go type.
func SpecContent(spec []byte) string { return hashed("spec", string(spec)) }

func hashed(parts ...string) string {
	h := sha256.New()
	for _, s := range parts {
		// The length first, so that what ends one part can't begin the next.
		h.Write(strconv.AppendInt(nil, int64(len(s)), 10))
		h.Write([]byte{':'})
		h.Write([]byte(s))
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:contentSize])
}
