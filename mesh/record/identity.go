// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package record

import (
	"strconv"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Identity is a number and the label set it stands for.
type Identity struct {
	ID     uint32
	Labels map[string]string
}

// Kind is KindIdentity.
func (*Identity) Kind() string { return KindIdentity }

func (i *Identity) path() (string, error) { return strconv.FormatUint(uint64(i.ID), 10), nil }

type identityReader struct{ *recordv1.Identity }

func (r identityReader) names() Object { return &Identity{ID: r.GetId()} }

func (r identityReader) parse() (Object, error) {
	labels, err := parseLabels("identity.labels", r.GetLabels(), maxLabels)
	if err != nil {
		return nil, err
	}
	return &Identity{ID: r.GetId(), Labels: labels}, nil
}

func (i *Identity) check(c Claim) error {
	if err := c.checkIdentityNumber("identity.id", i.ID); err != nil {
		return err
	}
	return c.checkLabelCluster("identity.labels", i.Labels)
}

func (c Claim) checkIdentityNumber(field string, id uint32) error {
	if !c.OwnsIdentity(id) {
		return reject(ReasonIdentityOutOfRange, field, "%d is not within %d..%d", id, uint32(c.ID)<<16|256, uint32(c.ID)<<16|0xffff)
	}
	return nil
}

// checkLabelCluster makes sure that labels say the truth about the cluster: selectors match by them.
func (c Claim) checkLabelCluster(field string, labels map[string]string) error {
	if got := labels[labelCluster]; got != c.Name {
		return reject(ReasonInvalidLabels, field, "%s is %q instead of %s", labelCluster, short(got), c.Name)
	}
	return nil
}

func parseLabels(field string, labels map[string]string, limit int) (map[string]string, error) {
	if err := checkLabels(field, labels, limit); err != nil {
		return nil, err
	}
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		out[intern(k)] = intern(v)
	}
	return out, nil
}

func checkLabels(field string, labels map[string]string, limit int) error {
	if len(labels) > limit {
		return reject(ReasonInvalidLabels, field, "has %d entries, more than %d", len(labels), limit)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabelKey || len(v) > maxSubdomain || hasControl(k) || hasControl(v) {
			return reject(ReasonInvalidLabels, field, "label %q is not one that Kubernetes allows", short(k))
		}
	}
	return nil
}
