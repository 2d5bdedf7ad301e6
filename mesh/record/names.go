// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

const (
	maxClusterName = 32
	maxLabel       = 63
	maxSubdomain   = 253
)

// ValidClusterName tells whether a name may name a cluster: a DNS label of at most 32 characters.
func ValidClusterName(s string) bool { return isLabel(s, maxClusterName) }

func checkClusterName(field, s string) error {
	if !ValidClusterName(s) {
		return reject(ReasonInvalidName, field, "%q is not a cluster name (a DNS label of at most %d characters)", short(s), maxClusterName)
	}
	return nil
}

func checkLabel(field, s string) error {
	if !isLabel(s, maxLabel) {
		return reject(ReasonInvalidName, field, "%q is not a DNS label", short(s))
	}
	return nil
}

func checkSubdomain(field, s string) error {
	if !isSubdomain(s) {
		return reject(ReasonInvalidName, field, "%q is not a DNS subdomain", short(s))
	}
	return nil
}

func isSubdomain(s string) bool {
	if len(s) > maxSubdomain {
		return false
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i == len(s) || s[i] == '.' {
			if !isLabel(s[start:i], maxSubdomain) {
				return false
			}
			start = i + 1
		}
	}
	return true
}

func isLabel(s string, most int) bool {
	if s == "" || len(s) > most || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
