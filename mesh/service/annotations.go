// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"fmt"
	"slices"
	"strings"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// Settings are what a Service's annotations ask of the mesh.
type Settings struct {
	Global   bool
	Shared   bool // only ever true if Global
	Affinity recordv1.Affinity
}

// The annotations, our name first: it wins where several are set. The others are what people who come from a Cilium
// ClusterMesh have in their manifests.
var (
	globalKeys   = []string{"fairlead.dev/global", "service.cilium.io/global", "io.cilium/global-service"}
	sharedKeys   = []string{"fairlead.dev/shared", "service.cilium.io/shared", "io.cilium/shared-service"}
	affinityKeys = []string{"fairlead.dev/affinity", "service.cilium.io/affinity", "io.cilium/service-affinity"}
)

const ownPrefix = "fairlead.dev/"

// planned annotations are understood by no version yet; saying so beats ignoring them.
var planned = []string{"fairlead.dev/prefer-clusters", "fairlead.dev/failover-threshold"}

// ParseAnnotations reads what a Service's annotations ask for. A value that is not understood counts as the default, and
// a warning names it: a typo must not change where traffic goes without anybody being told.
func ParseAnnotations(annotations map[string]string) (Settings, []string) {
	p := parser{annotations: annotations}
	s := Settings{Global: p.boolean(globalKeys, false)}
	shared := p.boolean(sharedKeys, true)
	affinity := p.affinity()
	if s.Global {
		s.Shared, s.Affinity = shared, affinity
	} else {
		p.ignored(sharedKeys)
		p.ignored(affinityKeys)
	}
	p.unknown()
	return s, p.warnings
}

type parser struct {
	annotations map[string]string
	warnings    []string
}

// lookup returns the first of several names for one setting that is set.
func (p *parser) lookup(keys []string) (key, value string, ok bool) {
	for _, k := range keys {
		if v, ok := p.annotations[k]; ok {
			return k, strings.ToLower(strings.TrimSpace(v)), true
		}
	}
	return "", "", false
}

func (p *parser) boolean(keys []string, def bool) bool {
	key, value, ok := p.lookup(keys)
	if !ok {
		return def
	}
	switch value {
	case "true":
		return true
	case "false":
		return false
	}
	p.warn("annotation %s: %q is neither true nor false; using the default, %t", key, p.annotations[key], def)
	return def
}

func (p *parser) affinity() recordv1.Affinity {
	key, value, ok := p.lookup(affinityKeys)
	if !ok {
		return recordv1.Affinity_AFFINITY_NONE
	}
	switch value {
	case "none", "":
		return recordv1.Affinity_AFFINITY_NONE
	case "local":
		return recordv1.Affinity_AFFINITY_LOCAL
	case "remote":
		return recordv1.Affinity_AFFINITY_REMOTE
	}
	p.warn("annotation %s: %q is none of local, remote, none; using the default, none", key, p.annotations[key])
	return recordv1.Affinity_AFFINITY_NONE
}

// ignored warns of a setting without effect.
func (p *parser) ignored(keys []string) {
	if key, _, ok := p.lookup(keys); ok {
		p.warn("annotation %s has no effect: the service is not global (%s: \"true\")", key, globalKeys[0])
	}
}

// unknown warns of annotations under our own domain that mean nothing, most likely misspelled.
func (p *parser) unknown() {
	var odd []string
	for k := range p.annotations {
		if !strings.HasPrefix(k, ownPrefix) || strings.HasPrefix(k, ownPrefix+"source-") {
			continue
		}
		if k != globalKeys[0] && k != sharedKeys[0] && k != affinityKeys[0] {
			odd = append(odd, k)
		}
	}
	slices.Sort(odd)
	for _, k := range odd {
		if slices.Contains(planned, k) {
			p.warn("annotation %s is not supported by this version and has no effect", k)
			continue
		}
		p.warn("annotation %s is unknown and has no effect; known are %s, %s and %s",
			k, globalKeys[0], sharedKeys[0], affinityKeys[0])
	}
}

func (p *parser) warn(format string, args ...any) {
	p.warnings = append(p.warnings, fmt.Sprintf(format, args...))
}
