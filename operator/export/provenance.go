// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package export

import (
	"cmp"

	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
)

// proof is that a source applied one state of one object. It stays true when the source goes on to another commit: an object
// that wasn't written yet is still of the commit before.
type proof struct {
	owner        OwnerName
	uid, content string
	from         *recordv1.Provenance
}

// provenance says where a policy came from, with a reason if the policy claims to come from somewhere and that isn't so. Who may
// write the policy may write its labels and annotations too, so these are a claim: they say which owner to ask. What counts is
// what the owner says itself, in its status. Nil: applied by hand.
func (s *State) provenance(r ref, p Policy, content string) (from *recordv1.Provenance, doubt string) {
	for _, c := range claimsOf(p) {
		from, why := s.ask(c.owner, r, p.UID, content)
		if from != nil {
			return from, ""
		}
		if !c.vague {
			doubt = cmp.Or(doubt, "its labels or annotations claim that it comes from "+c.owner.String()+", which "+why+": it counts as applied by hand")
		}
	}
	return nil, doubt
}

// ask looks whether an owner confirms that it applied a policy; if it doesn't, why.
func (s *State) ask(name OwnerName, r ref, uid, content string) (from *recordv1.Provenance, why string) {
	owner := s.owners[name]
	if owner == nil {
		return nil, "is not in this cluster, or applied nothing here"
	}
	applied, listed := owner.Policies[r.policyName()]
	if !listed {
		return nil, "doesn't list it among what it applied"
	}
	from = &recordv1.Provenance{
		Source: name.Kind + "/" + name.Namespace + "/" + name.Name, Url: owner.URL, Revision: owner.Revision, Path: cmp.Or(applied.Path, owner.Path),
	}
	if name.Kind != OwnerPolicySource {
		return from, ""
	}
	from.Source = name.Namespace + "/" + name.Name
	switch is := s.proofs[r]; {
	case applied.Content == content && (applied.UID == "" || applied.UID == uid):
		s.proofs[r] = proof{name, uid, content, from}
		return from, ""
	case is.from != nil && is.owner == name && is.uid == uid && is.content == content:
		return is.from, ""
	}
	return nil, "applied something else under this name"
}

// doubted remembers policies with a claim that isn't confirmed. Who applies an object often writes down only afterwards that it
// did, so nobody is warned at once.
type doubted struct {
	fresh, aged map[ref]struct{}
	told        map[ref]struct{} // worth a warning
}

func newDoubted() doubted {
	return doubted{map[ref]struct{}{}, map[ref]struct{}{}, map[ref]struct{}{}}
}

func (d doubted) set(r ref, doubt bool) {
	if !doubt {
		delete(d.fresh, r)
		delete(d.aged, r)
		delete(d.told, r)
		return
	}
	_, aged := d.aged[r]
	_, told := d.told[r]
	if !aged && !told {
		d.fresh[r] = struct{}{}
	}
}

// AgeClaims is called from time to time. Policies with a claim that was not confirmed at the call before, and isn't now, get a
// warning with the next Flush. It says whether there are any. Policies that have their warning cost nothing.
func (s *State) AgeClaims() bool {
	d := &s.doubted
	news := len(d.aged) > 0
	for r := range d.aged {
		d.told[r] = struct{}{}
		s.touch(r)
	}
	clear(d.aged)
	d.fresh, d.aged = d.aged, d.fresh
	return news
}
