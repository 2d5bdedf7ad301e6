// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gather

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
)

// eachPolicy calls f for every policy of a kind. A kind of others' that is not installed has none. Of one that operators enforce on
// request only, policies count on which an operator has said something.
func eachPolicy(ctx context.Context, c client.Client, kind v1alpha1.PolicyKind, f func(v1alpha1.PolicyObject) error) error {
	made, err := c.Scheme().New(kind.GroupVersion.WithKind(kind.Name + "List"))
	if err != nil {
		return err
	}
	list, is := made.(client.ObjectList)
	if !is {
		return fmt.Errorf("%T is no list", made)
	}
	if err := c.List(ctx, list); err != nil {
		if kind.CRD != "" && (meta.IsNoMatchError(err) || apierrors.IsNotFound(err)) {
			return nil
		}
		return err
	}
	return meta.EachListItem(list, func(o runtime.Object) error {
		p, is := o.(v1alpha1.PolicyObject)
		if !is {
			return fmt.Errorf("%T is no policy", o)
		}
		if kind.OnRequest && meta.FindStatusCondition(*kind.Conditions(p), v1alpha1.ConditionPolicyReady) == nil {
			return nil
		}
		return f(p)
	})
}
