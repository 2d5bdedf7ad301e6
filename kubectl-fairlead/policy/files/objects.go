// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package files

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/api/v1alpha1"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/gather"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/expect"
	"github.com/fairlead-mesh/fairlead/kubectl-fairlead/policy/world"
	"github.com/fairlead-mesh/fairlead/mesh/manifest"
	"github.com/fairlead-mesh/fairlead/mesh/policy"
	"github.com/fairlead-mesh/fairlead/mesh/record"
)

type reader struct {
	namespace string
	tree      expect.Tree
	services  []corev1.Service
	slices    []discoveryv1.EndpointSlice
	problems  []Problem
}

func (r *reader) fail(file string, line int, format string, args ...any) {
	r.problems = append(r.problems, Problem{File: file, Line: line, Message: fmt.Sprintf(format, args...)})
}

func (r *reader) file(name string, data []byte) {
	var expectations []manifest.Document
	for _, doc := range manifest.Split(data) {
		raw, bad := doc.JSON()
		switch {
		case bad != nil:
			r.fail(name, bad.Line, "%s", bad.Message)
		case string(raw) == "null":
		case manifest.IsExpectations(name, raw):
			expectations = append(expectations, doc)
		default:
			r.object(name, raw, doc.Positions())
		}
	}
	if len(expectations) > 0 {
		file, problems := expect.Parse(name, expectations)
		r.problems = append(r.problems, problems...)
		r.tree.Files = append(r.tree.Files, file)
	}
}

func (r *reader) object(file string, raw []byte, pos manifest.Positions) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(raw, &meta); err != nil {
		r.fail(file, pos.First(), "not a Kubernetes object")
		return
	}
	if meta.APIVersion == "" || meta.Kind == "" {
		r.fail(file, pos.First(), "apiVersion and kind are needed; expectations are in files that end in _test.yaml")
		return
	}
	group := meta.GroupVersionKind().Group
	kind, isPolicy := v1alpha1.PolicyKindNamed(meta.Kind)
	switch {
	case isPolicy && kind.GroupVersion.String() == meta.APIVersion:
		r.policy(file, raw, pos, kind)
	case isPolicy && kind.GroupVersion.Group == group:
		r.fail(file, pos.Of("apiVersion"), "%s of %s is not known; the version that is known is %s", meta.Kind, meta.APIVersion, kind.GroupVersion)
	case meta.APIVersion == "v1" && meta.Kind == "Namespace":
		var ns corev1.Namespace
		if r.decode(file, raw, &ns, pos) {
			r.tree.Namespaces = append(r.tree.Namespaces, expect.Namespace{
				Name: ns.Name, Labels: ns.Labels, Cluster: ns.Annotations[v1alpha1.LabelCluster], Mode: record.ReadNamespaceMode(ns.Name, ns.Labels, ns.Annotations),
			})
		}
	case meta.APIVersion == v1alpha1.GroupVersion.String() && meta.Kind == "ClusterMesh":
		var mesh v1alpha1.ClusterMesh
		if r.decode(file, raw, &mesh, pos) {
			r.tree.Meshes = append(r.tree.Meshes, mesh)
		}
	case meta.APIVersion == "v1" && meta.Kind == "Pod":
		var pod corev1.Pod
		if r.decode(file, raw, &pod, pos) && r.placed(file, &pod, pos) {
			r.tree.Pods = append(r.tree.Pods, gather.PodOf(pod.Annotations[v1alpha1.LabelCluster], &pod))
		}
	case meta.APIVersion == "v1" && meta.Kind == "Service":
		var s corev1.Service
		if r.decode(file, raw, &s, pos) && r.placed(file, &s, pos) {
			r.services = append(r.services, s)
		}
	case meta.APIVersion == "discovery.k8s.io/v1" && meta.Kind == "EndpointSlice":
		var s discoveryv1.EndpointSlice
		if r.decode(file, raw, &s, pos) && r.placed(file, &s, pos) {
			r.slices = append(r.slices, s)
		}
	case group == v1alpha1.GroupVersion.Group && meta.Kind != "PolicySource" && meta.Kind != "ClusterMesh" && meta.Kind != "MeshCluster":
		r.fail(file, pos.Of("kind"), "there is no kind %s of %s", meta.Kind, meta.APIVersion)
	}
}

func (r *reader) decode(file string, raw []byte, into any, pos manifest.Positions) bool {
	wrong := manifest.Decode(raw, into, pos)
	for _, w := range wrong {
		r.fail(file, w.Line, "%s", w.Message)
	}
	return len(wrong) == 0
}

// placed sees that an object has a name and a namespace.
func (r *reader) placed(file string, o metav1.Object, pos manifest.Positions) bool {
	if o.GetName() == "" {
		r.fail(file, pos.Of("metadata"), "metadata.name is missing")
		return false
	}
	if o.GetNamespace() == "" {
		o.SetNamespace(r.namespace)
	}
	if o.GetNamespace() == "" {
		r.fail(file, pos.Of("metadata"), "metadata.namespace is missing; write it, or give --namespace")
		return false
	}
	return true
}

func (r *reader) policy(file string, raw []byte, pos manifest.Positions, kind v1alpha1.PolicyKind) {
	o := kind.New()
	if !r.decode(file, raw, o, pos) || kind.Namespaced && !r.placed(file, o, pos) {
		return
	}
	spec, err := json.Marshal(kind.Spec(o))
	if err != nil {
		r.fail(file, pos.Of("spec"), "write the spec: %v", err)
		return
	}
	rec := &record.Policy{PolicyKind: kind.Name, Namespace: o.GetNamespace(), Name: o.GetName(), Spec: spec, Provenance: record.Provenance{Path: file}}
	if _, err := record.KeyOf("cluster", rec); err != nil {
		r.fail(file, pos.Of("metadata"), "%v", err)
		return
	}
	r.tree.Policies = append(r.tree.Policies, &world.Policy{Record: rec, Model: policy.Parse(rec), Line: pos.Find})
}

// define puts services together with their slices.
func (r *reader) define() {
	cluster := func(o metav1.Object) string { return o.GetAnnotations()[v1alpha1.LabelCluster] }
	for i := range r.services {
		s := &r.services[i]
		own := slices.DeleteFunc(slices.Clone(r.slices), func(e discoveryv1.EndpointSlice) bool { return cluster(&e) != cluster(s) })
		r.tree.Services = append(r.tree.Services, gather.Definitions(cluster(s), r.services[i:i+1], own)...)
	}
}

// twice finds policies that are defined more than once: an API server holds one of a name.
func (r *reader) twice() {
	first := map[string]*world.Policy{}
	for _, p := range r.tree.Policies {
		line, _ := p.Line("")
		if was, has := first[p.Model.Key()]; has {
			at, _ := was.Line("")
			r.fail(p.Record.Provenance.Path, line, "%s is already defined at %s:%d", world.PolicyName(p.Model.Key()), was.Record.Provenance.Path, at)
			continue
		}
		first[p.Model.Key()] = p
	}
}
