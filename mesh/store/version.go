// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"strconv"
	"strings"
)

// minimum is the oldest safe patch of a minor version, and what older ones are open to.
type minimum struct {
	major, minor, patch int
	holes               string
}

// In older versions a member's credential is not worth much: etcd's own permission checks could be passed by.
var minimums = []minimum{
	{3, 6, 11, "CVE-2026-33343, CVE-2026-33413 and CVE-2026-44283"},
	{3, 5, 30, "CVE-2026-44283"},
}

// supported refuses versions with known holes in their authorization.
func supported(version string) error {
	major, minor, patch, err := parseVersion(version)
	if err != nil {
		return err
	}
	if major > 3 || major == 3 && minor > 6 {
		return nil
	}
	for _, m := range minimums {
		if major != m.major || minor != m.minor {
			continue
		}
		if patch >= m.patch {
			return nil
		}
		return fmt.Errorf("etcd %s lets members get past its permission checks (%s): %d.%d.%d or newer is needed",
			version, m.holes, m.major, m.minor, m.patch)
	}
	return fmt.Errorf("etcd %s is too old (CVE-2026-33343, CVE-2026-33413, CVE-2026-44283 and others): 3.6.11 or newer is needed (3.5.30 is accepted)", version)
}

func parseVersion(version string) (major, minor, patch int, err error) {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) != 3 {
		return 0, 0, 0, fmt.Errorf("etcd version %q is not a version", version)
	}
	// A pre-release of a fixed version ("3.6.11-rc.1") may lack the fix, so it counts as the patch before.
	number, pre, isPre := strings.Cut(parts[2], "-")
	if !isPre {
		number, _, _ = strings.Cut(number, "+")
	}
	for _, p := range []struct {
		text string
		into *int
	}{{parts[0], &major}, {parts[1], &minor}, {number, &patch}} {
		if *p.into, err = strconv.Atoi(p.text); err != nil || *p.into < 0 {
			return 0, 0, 0, fmt.Errorf("etcd version %q is not a version", version)
		}
	}
	if isPre && pre != "" {
		patch--
	}
	return major, minor, patch, nil
}
