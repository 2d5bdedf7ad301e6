// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package script

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the expected outputs in testdata")

// worldKey finds a story's world.
type worldKey struct{}

func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			testscript.Run(t, testscript.Params{
				Files: []string{file}, UpdateScripts: *update, RequireUniqueNames: true, Cmds: commands(),
				Setup: func(env *testscript.Env) error {
					env.Values[worldKey{}] = newWorld(t, env.WorkDir)
					// What every story begins with: the clusters' membership and their first nodes.
					return os.CopyFS(filepath.Join(env.WorkDir, "common"), os.DirFS("testdata/common"))
				},
			})
		})
	}
}
