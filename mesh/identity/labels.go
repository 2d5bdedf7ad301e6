// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"maps"
	"slices"
	"strings"
)

// Labels that an identity has besides the pod's own.
const (
	LabelCluster         = "fairlead.dev/cluster"
	LabelNamespace       = "fairlead.dev/namespace"
	LabelServiceAccount  = "fairlead.dev/service-account"
	LabelNamespacePrefix = "namespace.fairlead.dev/"

	// namespaceNameLabel is what the API server puts on every namespace; policies of all vendors select by it.
	namespaceNameLabel = "kubernetes.io/metadata.name"
	ownDomain          = "fairlead.dev"
)

// excluded are labels that controllers put on pods to tell them (or their revisions) apart. Each would give every pod, or
// every rollout, an identity of its own: the 65,280 numbers of a cluster would run out, and each rollout would change
// every node's policy tables for pods that mean the same. A Job's name stays: policies do select by it.
var excluded = map[string]string{
	"pod-template-hash":                        "changes with each rollout of a Deployment",
	"controller-revision-hash":                 "changes with each rollout of a StatefulSet or DaemonSet",
	"pod-template-generation":                  "changes with each rollout of a DaemonSet",
	"statefulset.kubernetes.io/pod-name":       "differs for each pod of a StatefulSet",
	"apps.kubernetes.io/pod-index":             "differs for each pod of a StatefulSet",
	"controller-uid":                           "differs for each Job",
	"batch.kubernetes.io/controller-uid":       "differs for each Job",
	"batch.kubernetes.io/job-completion-index": "differs for each pod of an indexed Job",
	"leaderworkerset.sigs.k8s.io/group-key":    "differs for each group of a LeaderWorkerSet",
	"leaderworkerset.sigs.k8s.io/worker-index": "differs for each pod of a LeaderWorkerSet",
	"leaderworkerset.sigs.k8s.io/group-index":  "differs for each group of a LeaderWorkerSet",
}

// Excluded says whether a pod's label is left out of identities, and why. Whether a selector that names such a label matches
// a pod can't be known from the pod's identity.
func Excluded(key string) (reason string, is bool) {
	if r, ok := excluded[key]; ok {
		return "it " + r + ", which would give each its own identity", true
	}
	if isOwn(key) && !Given(key) {
		return "whoever may create pods could forge a label of " + ownDomain, true
	}
	return "", false
}

// Given says whether PodLabels gives identities a label of our domain.
func Given(key string) bool {
	return key == LabelCluster || key == LabelNamespace || key == LabelServiceAccount || strings.HasPrefix(key, LabelNamespacePrefix)
}

// ExcludedKeys lists the labels that are left out, sorted.
func ExcludedKeys() []string { return slices.Sorted(maps.Keys(excluded)) }

// PodLabels returns the label set that a pod's identity stands for. Labels of the pod under fairlead.dev or a domain
// below it are dropped: whoever may create pods could otherwise claim another cluster, namespace or service account.
func PodLabels(cluster, namespace, serviceAccount string, podLabels, namespaceLabels map[string]string) map[string]string {
	out := make(map[string]string, len(podLabels)+len(namespaceLabels)+4)
	for k, v := range podLabels {
		if _, no := excluded[k]; no || isOwn(k) {
			continue
		}
		out[k] = v
	}
	for k, v := range namespaceLabels {
		out[LabelNamespacePrefix+k] = v
	}
	out[LabelNamespacePrefix+namespaceNameLabel] = namespace
	out[LabelCluster] = cluster
	out[LabelNamespace] = namespace
	if serviceAccount == "" {
		serviceAccount = "default"
	}
	out[LabelServiceAccount] = serviceAccount
	return out
}

// isOwn says whether a label's key lies in a domain that only Fairlead writes.
func isOwn(key string) bool {
	domain, _, found := strings.Cut(key, "/")
	return found && (domain == ownDomain || strings.HasSuffix(domain, "."+ownDomain))
}

// Canonical writes a label set so that equal sets, and only those, give equal strings.
func Canonical(labels map[string]string) string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		escape(&b, k)
		b.WriteByte('=')
		escape(&b, labels[k])
		b.WriteByte(';')
	}
	return b.String()
}

// escape keeps Canonical unambiguous for whatever bytes a foreign record holds.
func escape(b *strings.Builder, s string) {
	for i := range len(s) {
		switch s[i] {
		case '\\', '=', ';':
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
}
