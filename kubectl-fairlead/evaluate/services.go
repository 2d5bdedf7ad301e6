// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package evaluate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/mesh/service"
)

// servicesCheck counts what the nodes have programmed, and global services, and names annotations that are not
// understood. All nodes of a cluster hold the same services, so a node that holds fewer is behind or has trouble.
func servicesCheck(s Snapshot) Check {
	var f finding
	var most int32
	for _, n := range s.Nodes {
		most = max(most, n.Status.Services)
	}
	for _, n := range s.Nodes {
		if n.Status.Services < most && !silent(n, s.Taken) {
			f.warn("wait a moment; if it stays, see the agent's log on that node",
				fmt.Sprintf("%s: %d of %d frontends programmed", n.Name, n.Status.Services, most))
		}
	}
	var global []string
	for _, svc := range s.Services {
		name := svc.Namespace + "/" + svc.Name
		settings, warnings := service.ParseAnnotations(svc.Annotations)
		if settings.Global {
			global = append(global, name)
		}
		for _, w := range warnings {
			f.warn("correct the annotation of the Service", name+": "+w)
		}
	}
	slices.Sort(global)
	summary := fmt.Sprintf("%s on each node, %s", plural(int(most), "frontend", "frontends"), plural(len(global), "global service", "global services"))
	if len(global) > 0 {
		summary += ": " + shorten(global)
	}
	return f.check("fl-services-programmed", SectionServices, summary)
}

const namesShown = 5

// shorten names the first few.
func shorten(names []string) string {
	if len(names) <= namesShown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:namesShown], ", "), len(names)-namesShown)
}
