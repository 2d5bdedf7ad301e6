// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/bpf"
	"github.com/fairlead-mesh/fairlead/mesh/record"
	recordv1 "github.com/fairlead-mesh/fairlead/mesh/record/v1"
	"github.com/fairlead-mesh/fairlead/mesh/store"
	"github.com/fairlead-mesh/fairlead/nodeagent/table"
	"github.com/fairlead-mesh/fairlead/operator/federate"
)

// command of the stories. What it gives is its standard output.
type command struct {
	usage string
	// looks: the command looks at the outcome, so everything must be at rest first.
	looks bool
	run   func(w *world, out io.Writer, args []string) error
}

// vocabulary of the stories.
var vocabulary = map[string]command{
	"start":      {"start CLUSTER [FILE...] | start NODE", false, runStart},
	"halt":       {"halt CLUSTER|NODE", true, runHalt},
	"restart":    {"restart NODE", true, runRestart},
	"node":       {"node NAME [own-cni]", false, runNode},
	"apply":      {"apply CLUSTER FILE...", false, runApply},
	"delete":     {"delete CLUSTER FILE...", false, runDelete},
	"commit":     {"commit REPOSITORY", false, runCommit},
	"revert":     {"revert REPOSITORY", true, runRevert},
	"disconnect": {"disconnect CLUSTER", true, func(w *world, _ io.Writer, args []string) error { return w.setCut(args, true) }},
	"reconnect":  {"reconnect CLUSTER", false, func(w *world, _ io.Writer, args []string) error { return w.setCut(args, false) }},
	"store":      {"store up|down|wipe", true, runStore},
	"forge":      {"forge MEMBER FILE [KEY]", true, runForge},
	"break":      {"break NODE MAP [TIMES]", true, runBreak},
	"fill":       {"fill NODE MAP", true, runFill},
	"heal":       {"heal NODE MAP", false, runHeal},

	"dump":       {"dump NODE policy|subjects|ipcache|services|peers|routes|pods", true, runDump},
	"writes":     {"writes NODE...", true, runWrites},
	"failing":    {"failing NODE", true, runFailing},
	"federation": {"federation CLUSTER", true, runFederation},
	"policies":   {"policies CLUSTER", true, runPolicies},
	"sources":    {"sources CLUSTER", true, runSources},
}

func commands() map[string]func(*testscript.TestScript, bool, []string) {
	out := map[string]func(*testscript.TestScript, bool, []string){}
	for name, c := range vocabulary {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			w, ok := ts.Value(worldKey{}).(*world)
			if !ok {
				ts.Fatalf("the story has no world")
			}
			if c.looks {
				ts.Check(w.settle())
			}
			err := c.run(w, ts.Stdout(), args)
			switch {
			case errors.Is(err, errUsage):
				ts.Fatalf("usage: %s", c.usage)
			case neg && err == nil:
				ts.Fatalf("%s went well, and should not have", name)
			case neg:
				_, _ = fmt.Fprintln(ts.Stderr(), err)
			case err != nil:
				ts.Fatalf("%v", err)
			}
		}
	}
	return out
}

var errUsage = errors.New("wrong arguments")

func (w *world) clusterOf(args []string) (*cluster, error) {
	if len(args) == 0 {
		return nil, errUsage
	}
	c := w.clusters[args[0]]
	if c == nil {
		return nil, fmt.Errorf("there is no cluster %s", args[0])
	}
	return c, nil
}

func (w *world) nodeOf(args []string) (*node, error) {
	if len(args) == 0 {
		return nil, errUsage
	}
	n := w.nodes[args[0]]
	if n == nil {
		return nil, fmt.Errorf("there is no node %s", args[0])
	}
	return n, nil
}

func (n *node) mapOf(args []string) (breakable, error) {
	if len(args) < 2 {
		return nil, errUsage
	}
	for _, d := range n.kernel.maps() {
		if d.Name() == args[1] {
			return d, nil
		}
	}
	return nil, fmt.Errorf("there is no map %s", args[1])
}

func runStart(w *world, _ io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	if n := w.nodes[args[0]]; n != nil {
		return n.start(w.log)
	}
	return w.startCluster(args[0], args[1:])
}

func runHalt(w *world, _ io.Writer, args []string) error {
	if n, err := w.nodeOf(args); err == nil {
		return n.stop()
	}
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	c.stop()
	return nil
}

func runRestart(w *world, _ io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	if err := n.stop(); err != nil {
		return err
	}
	return n.start(w.log)
}

func runNode(w *world, _ io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	return w.newNode(args[0], slices.Contains(args[1:], "own-cni"))
}

func runApply(w *world, _ io.Writer, args []string) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	if err := w.apply(c, args[1:]); err != nil {
		return err
	}
	return c.requestLook()
}

func runDelete(w *world, _ io.Writer, args []string) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	for _, f := range args[1:] {
		text, err := w.file(f)
		if err != nil {
			return err
		}
		if err := c.kube.remove(context.Background(), text); err != nil {
			return err
		}
	}
	return c.requestLook()
}

func runCommit(w *world, _ io.Writer, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	return w.git.commit(args[0])
}

func runRevert(w *world, _ io.Writer, args []string) error {
	if len(args) != 1 {
		return errUsage
	}
	return w.git.revert(args[0])
}

func (w *world) setCut(args []string, cut bool) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	c.network.setCut(cut)
	return nil
}

func runStore(w *world, _ io.Writer, args []string) error {
	switch strings.Join(args, " ") {
	case "down":
		w.etcd.Stop()
		w.down = true
	case "up":
		w.etcd.Up()
		w.down = false
	case "wipe":
		w.etcd.Wipe()
	default:
		return errUsage
	}
	return nil
}

// runForge publishes the records of a YAML file: a list of {key, record}. With a key the first record is put there
// directly, past the publisher.
func runForge(w *world, _ io.Writer, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	text, err := w.file(args[1])
	if err != nil {
		return err
	}
	set, err := readRecords(text)
	if err != nil {
		return err
	}
	if len(args) == 2 {
		return w.forge(args[0], set)
	}
	for _, value := range set {
		return w.put(args[0], store.Root+args[2], value)
	}
	return errUsage
}

func readRecords(text string) (record.Set, error) {
	var list []struct {
		Key    string         `json:"key"`
		Record map[string]any `json:"record"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	set := record.Set{}
	for _, l := range list {
		asJSON, err := yaml.Marshal(l.Record)
		if err != nil {
			return nil, err
		}
		if asJSON, err = yaml.YAMLToJSON(asJSON); err != nil {
			return nil, err
		}
		rec := &recordv1.Record{}
		if err := protojson.Unmarshal(asJSON, rec); err != nil {
			return nil, fmt.Errorf("record %s: %w", l.Key, err)
		}
		if set[l.Key], err = record.Marshal(rec); err != nil {
			return nil, fmt.Errorf("record %s: %w", l.Key, err)
		}
	}
	return set, nil
}

func runBreak(w *world, _ io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	d, err := n.mapOf(args)
	if err != nil {
		return err
	}
	times := forever
	if len(args) > 2 {
		if times, err = strconv.Atoi(args[2]); err != nil || times < 1 {
			return errUsage
		}
	}
	d.fail(times)
	return nil
}

func runHeal(w *world, _ io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	d, err := n.mapOf(args)
	if err != nil {
		return err
	}
	d.heal()
	return nil
}

// runFill leaves a map no room for rows that it doesn't have.
func runFill(w *world, _ io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	d, err := n.mapOf(args)
	if err != nil {
		return err
	}
	d.fill()
	return nil
}

func runDump(w *world, out io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	if len(args) != 2 || dumps[args[1]] == nil {
		return errUsage
	}
	for _, line := range dumps[args[1]](n) {
		_, _ = fmt.Fprintln(out, line)
	}
	return nil
}

// runWrites shows what was written to a node's kernel since it was last asked.
func runWrites(w *world, out io.Writer, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	for _, name := range args {
		n, err := w.nodeOf([]string{name})
		if err != nil {
			return err
		}
		var parts []string
		for _, d := range n.kernel.maps() {
			if written, removed := d.takeCounts(); written+removed > 0 {
				parts = append(parts, fmt.Sprintf("%s %d written %d removed", d.Name(), written, removed))
			}
		}
		if len(parts) == 0 {
			parts = []string{"nothing"}
		}
		_, _ = fmt.Fprintf(out, "%s: %s\n", name, strings.Join(parts, ", "))
	}
	return nil
}

// runFailing shows the rows that the kernel refuses, and what the agent reports of it.
func runFailing(w *world, out io.Writer, args []string) error {
	n, err := w.nodeOf(args)
	if err != nil {
		return err
	}
	t := n.agent.Tables
	var lines []string
	for row := range t.Groups.All() {
		if row.Status.State != table.Failed {
			continue
		}
		for _, l := range row.Value.Line {
			switch l.Verdict {
			case bpf.VerdictNone:
			case bpf.VerdictPass, bpf.VerdictAuditPass: // name a line, no rule
				lines = append(lines, "line that passes: failed")
			default:
				lines = append(lines, "line of "+n.rule(l.RuleID)+": failed")
			}
		}
	}
	for row := range t.Subjects.All() {
		if row.Status.State == table.Failed {
			lines = append(lines, fmt.Sprintf("subject %s %s: failed", row.Key.Dir, n.who(row.Key.Identity)))
		}
	}
	for row := range t.Frontends.All() {
		if row.Status.State == table.Failed {
			lines = append(lines, "frontend "+row.Key.String()+": failed")
		}
	}
	for _, c := range n.agent.State().Tables {
		if c.Failed > 0 {
			lines = append(lines, fmt.Sprintf("table %s: %d of %d rows failed", c.Name, c.Failed, c.Rows))
		}
	}
	slices.Sort(lines)
	for _, l := range lines {
		_, _ = fmt.Fprintln(out, l)
	}
	return nil
}

// runFederation shows what a cluster makes of the others.
func runFederation(w *world, out io.Writer, args []string) error {
	c, err := w.clusterOf(args)
	if err != nil {
		return err
	}
	if c.operator == nil {
		return fmt.Errorf("the operator of %s doesn't run", c.name)
	}
	o := c.operator.Intake.Overview()
	for _, name := range slices.Sorted(maps.Keys(o.Remotes)) {
		r := o.Remotes[name]
		state := "not synced"
		switch {
		case r.State.Stale:
			state = "stale"
		case r.State.Synced:
			state = "synced"
		}
		if r.Decision == nil {
			state += ", not let in"
		}
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(r.Records)) {
			if r.Records[kind] > 0 {
				kinds = append(kinds, fmt.Sprintf("%d %s", r.Records[kind], kind))
			}
		}
		_, _ = fmt.Fprintf(out, "%s %s; taken: %s\n", name, state, strings.Join(kinds, ", "))
		for _, refused := range slices.SortedFunc(slices.Values(r.Rejections), byKey) {
			_, _ = fmt.Fprintf(out, "  refused %s: %s\n", refused.Key, refused.Message)
		}
	}
	refused := c.operator.Discoverer.Refused()
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		_, _ = fmt.Fprintf(out, "%s is refused: %s\n", name, refused[name])
	}
	return nil
}

func byKey(a, b federate.Rejection) int { return strings.Compare(a.Key, b.Key) }
