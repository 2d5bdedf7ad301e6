// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/mesh/identity"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// built is what an object's record was when it was last flushed.
type built struct {
	key       string
	data      []byte
	shared    []byte // what other clusters get, if it is published
	published bool
	warnings  []string
}

// Change is a record of the local view that came, changed or (nil) went.
type Change struct {
	Key    string
	Record *recordv1.Record
}

// Warning is something an object's owner should know, said once when it comes up.
type Warning struct {
	Kind, Namespace, Name string
	Message               string
}

// Delta is what changed since the last Flush.
type Delta struct {
	Local     []Change
	Published record.Delta
	Warnings  []Warning
	// Unnumbered says that pods came whose label set has no number yet (see State.Unnumbered).
	Unnumbered bool
}

// Empty says whether nothing changed.
func (d Delta) Empty() bool {
	return len(d.Local) == 0 && d.Published.Empty() && len(d.Warnings) == 0 && !d.Unnumbered
}

// Flush rebuilds the records that changes since the last Flush can have touched, and says which really changed.
func (s *State) Flush() Delta {
	d := Delta{Published: record.Delta{Put: record.Set{}}}
	for _, r := range s.takeDirty() {
		was := s.built[r]
		if was == nil {
			was = &built{}
		}
		rec, is := s.build(r)
		d.add(r, was, is, rec)
		d.Unnumbered = d.Unnumbered || r.kind == record.KindEndpoint && s.unnumbered(nsName{r.namespace, r.name})
		if is.key == "" && len(is.warnings) == 0 {
			delete(s.built, r)
		} else {
			s.built[r] = is
		}
	}
	slices.Sort(d.Published.Delete)
	s.cut = cut{}
	return d
}

// Published gives the whole published view as of the last Flush.
func (s *State) Published() record.Set {
	set := record.Set{}
	for _, b := range s.built {
		if b.published {
			set[b.key] = b.shared
		}
	}
	return set
}

func (s *State) takeDirty() []ref {
	refs := make([]ref, 0, len(s.dirty))
	for r := range s.dirty {
		refs = append(refs, r)
	}
	clear(s.dirty)
	// Identities before the endpoints that have them, services before their slices.
	kinds := record.Kinds()
	slices.SortFunc(refs, func(a, b ref) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.kind), slices.Index(kinds, b.kind)),
			cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.policy, b.policy),
			cmp.Compare(b.part, a.part)) // an EndpointSlice's parts before the whole, which they may take the place of
	})
	return refs
}

func (d *Delta) add(r ref, was, is *built, rec *recordv1.Record) {
	moved := was.key != "" && was.key != is.key // the cluster got another name
	if moved {
		d.Local = append(d.Local, Change{Key: was.key})
	}
	if is.key != "" && (moved || was.key == "" || !bytes.Equal(was.data, is.data)) {
		d.Local = append(d.Local, Change{Key: is.key, Record: rec})
	}
	if was.published && (moved || !is.published) {
		d.Published.Delete = append(d.Published.Delete, was.key)
	}
	if is.published && (moved || !was.published || !bytes.Equal(was.shared, is.shared)) {
		d.Published.Put[is.key] = is.shared
	}
	for _, w := range is.warnings {
		if !slices.Contains(was.warnings, w) {
			d.Warnings = append(d.Warnings, Warning{Kind: warningKind(r), Namespace: r.namespace, Name: r.name, Message: w})
		}
	}
}

func warningKind(r ref) string {
	switch r.kind {
	case record.KindPolicy:
		return r.policy
	case record.KindEndpoint:
		return "Pod"
	case record.KindNode:
		return "Node"
	case record.KindService:
		return "Service"
	case record.KindSlice:
		return "EndpointSlice"
	case record.KindIdentity:
		return "MeshIdentity"
	}
	return "ClusterMesh"
}

// build makes the record of an object as things are now.
func (s *State) build(r ref) (*recordv1.Record, *built) {
	if s.mesh == nil {
		return nil, &built{}
	}
	rec, publish, warnings := s.recordOf(r)
	b := &built{warnings: warnings}
	if rec == nil {
		return nil, b
	}
	key, err := record.Key(rec)
	if err != nil {
		b.warnings = append(b.warnings, "not exported: "+err.Error())
		return nil, b
	}
	data, err := record.Marshal(rec)
	if err != nil {
		b.warnings = append(b.warnings, "not exported: "+err.Error())
		return nil, b
	}
	b.key, b.data, b.shared, b.published = key, data, data, publish
	if own := forOthers(rec); publish && own != rec {
		if b.shared, err = record.Marshal(own); err != nil {
			b.published = false
			b.warnings = append(b.warnings, "not published to other clusters: "+err.Error())
		}
	}
	if publish && s.claim != nil {
		// What the others would refuse is better said here, where somebody can change it.
		if err := record.Validate(key, rec, *s.claim); err != nil {
			b.published = false
			b.warnings = append(b.warnings, "not published to other clusters: "+err.Error())
		}
	}
	return rec, b
}

// forOthers is a record as other clusters get it. Labels of nodes are for the own cluster's policies, which are all that name
// nodes; there are many, and they change without a meaning for anybody else. Host ports are closed to other clusters.
func forOthers(rec *recordv1.Record) *recordv1.Record {
	if len(rec.GetNode().GetLabels())+len(rec.GetEndpoint().GetHostPorts()) == 0 {
		return rec
	}
	out, ok := proto.Clone(rec).(*recordv1.Record)
	if ok && out.GetNode() != nil {
		out.GetNode().Labels = nil
	}
	if ok && out.GetEndpoint() != nil {
		out.GetEndpoint().HostPorts = nil
	}
	return out
}

func (s *State) recordOf(r ref) (rec *recordv1.Record, publish bool, warnings []string) {
	cluster, k := s.mesh.ClusterName, nsName{r.namespace, r.name}
	switch r.kind {
	case record.KindCluster:
		return ClusterRecord(s.mesh, s.version), true, nil
	case record.KindNode:
		if n := s.nodes[r.name]; n != nil {
			return NodeRecord(cluster, n, s.meshNodes[r.name]), true, nil
		}
	case record.KindIdentity:
		n, err := IdentityNumber(r.name)
		labels, ok := s.identities[n]
		if err == nil && ok && s.claim != nil && s.claim.OwnsIdentity(n) {
			return IdentityRecord(cluster, n, labels), true, nil
		}
	case record.KindEndpoint:
		if p := s.pods[k]; p != nil && IsEndpoint(p.pod) {
			if n, ok := s.numbers[p.canonical]; ok {
				return EndpointRecord(cluster, p.pod, n), true, nil
			}
		}
	case record.KindService:
		if svc := s.services[k]; svc != nil {
			rec, warnings := ServiceRecord(cluster, svc, s.exportAnnotated())
			return rec, rec.GetService().GetGlobal(), warnings
		}
	case record.KindSlice:
		return s.sliceRecord(k, r.part)
	case record.KindPolicy:
		if p, ok := s.policies[r]; ok {
			rec, warnings := s.policyRecord(r, p)
			return rec, false, warnings
		}
	}
	return nil, false, nil
}

func (s *State) policyRecord(r ref, p Policy) (*recordv1.Record, []string) {
	mode := record.ModeOf(r.namespace, s.modes[r.namespace], s.mesh.Policy.Mode)
	rec, err := PolicyRecord(s.mesh.ClusterName, p, mode, nil)
	if err != nil {
		return nil, []string{"not exported: " + err.Error()}
	}
	var warnings []string
	if mode.Problem != "" {
		warnings = append(warnings, mode.Problem)
	}
	from, doubt := s.provenance(r, p, record.SpecContent(rec.GetPolicy().GetSpecJson()))
	rec.GetPolicy().Provenance = from
	s.doubted.set(r, doubt != "")
	if _, told := s.doubted.told[r]; told {
		warnings = append(warnings, doubt)
	}
	return rec, warnings
}

func (s *State) sliceRecord(k nsName, part uint32) (*recordv1.Record, bool, []string) {
	eps := s.slices[k]
	if eps == nil {
		return nil, false, nil
	}
	if s.cut.of != eps { // all parts of one are built one after the other
		s.cut = cutUp(eps)
	}
	rec := s.cut.record(s.mesh.ClusterName, part)
	owner := s.services[nsName{k.namespace, rec.GetBackendSlice().GetService()}]
	if rec == nil || owner == nil {
		return nil, false, nil
	}
	svc, _ := ServiceRecord(s.mesh.ClusterName, owner, s.exportAnnotated())
	return rec, svc.GetService().GetGlobal() && svc.GetService().GetShared(), nil
}

func (s *State) exportAnnotated() bool { return s.mesh.Services.DefaultExport != "None" }

func identityName(n identity.Number) string { return strconv.FormatUint(uint64(n), 10) }

func wantsIdentity(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}
