// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

// Package condition sets conditions as kstatus understands them and writes a status only when it differs from what
// the API server has, so that a healthy object costs no request.
package condition

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Types that kstatus knows.
const (
	Ready       = "Ready"
	Reconciling = "Reconciling"
	Stalled     = "Stalled"
)

// maxMessage is the API's limit for a condition's message.
const maxMessage = 32768

// Setter sets conditions of one object at one generation.
type Setter struct {
	Conditions *[]metav1.Condition
	Generation int64
}

// True sets a condition to True.
func (s Setter) True(typ, reason, format string, args ...any) {
	s.set(typ, metav1.ConditionTrue, reason, fmt.Sprintf(format, args...))
}

// False sets a condition to False.
func (s Setter) False(typ, reason, format string, args ...any) {
	s.set(typ, metav1.ConditionFalse, reason, fmt.Sprintf(format, args...))
}

// Unknown sets a condition to Unknown.
func (s Setter) Unknown(typ, reason, format string, args ...any) {
	s.set(typ, metav1.ConditionUnknown, reason, fmt.Sprintf(format, args...))
}

// Remove takes conditions away.
func (s Setter) Remove(types ...string) {
	for _, t := range types {
		meta.RemoveStatusCondition(s.Conditions, t)
	}
}

func (s Setter) set(typ string, status metav1.ConditionStatus, reason, message string) {
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	meta.SetStatusCondition(s.Conditions, metav1.Condition{
		Type: typ, Status: status, Reason: reason, Message: message, ObservedGeneration: s.Generation,
	})
}

// IsTrue says whether a condition is there and True.
func IsTrue(conditions []metav1.Condition, typ string) bool {
	return meta.IsStatusConditionTrue(conditions, typ)
}

// Changed says whether a condition differs in what a reader sees (status, reason, message) between two lists.
func Changed(before, after []metav1.Condition, typ string) bool {
	b, a := meta.FindStatusCondition(before, typ), meta.FindStatusCondition(after, typ)
	if b == nil || a == nil {
		return b != a
	}
	return b.Status != a.Status || b.Reason != a.Reason || b.Message != a.Message
}

// Patch writes the status of after if it differs from before, and says whether it did. Only the fields that changed
// travel, so that two writers of different fields don't overwrite each other.
func Patch(ctx context.Context, c client.Client, before, after client.Object) (bool, error) {
	if equality.Semantic.DeepEqual(before, after) {
		return false, nil
	}
	if err := c.Status().Patch(ctx, after, client.MergeFrom(before)); err != nil {
		return false, fmt.Errorf("write status of %s %s: %w", after.GetObjectKind().GroupVersionKind().Kind, client.ObjectKeyFromObject(after), err)
	}
	return true, nil
}
