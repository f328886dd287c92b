package actors_test

import (
	"flag"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/journal/model"
)

var update = flag.Bool("update", false, "write docs/actors.md anew")

const page = "../docs/actors.md"

// TestTheDocsShowTheTrees compares docs/actors.md with the declaration.
func TestTheDocsShowTheTrees(t *testing.T) {
	want := draw(t)
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: run go test ./actors -update", page)
	}
}

func draw(t *testing.T) string {
	system := supervise.NewSystem(nil)
	defer system.Shutdown()
	var b strings.Builder
	b.WriteString("# The actors\n\nWritten by `go test ./actors -update` from `actors/tree.go` and the packages' own words.\n")
	for _, tree := range []struct {
		title string
		node  supervise.Node
	}{
		{"The control tree, on the leader", actors.Control(actors.ControlDeps{System: system, Journal: model.New(model.Options{Decode: api.Decode}), Kernel: mailbox.Real()})},
		{"The node tree, on every machine", actors.Machine(actors.MachineDeps{System: system, Kernel: mailbox.Real()})},
	} {
		b.WriteString("\n## " + tree.title + "\n\n```mermaid\n")
		if err := tree.node.Mermaid(&b); err != nil {
			t.Fatal(err)
		}
		b.WriteString("```\n")
	}
	b.WriteString("\n## Their contracts\n")
	for _, c := range contracts(t) {
		b.WriteString("\n### " + c.name + "\n\n" + c.text)
	}
	return b.String()
}

type contract struct{ name, text string }

// contracts are the package comments of the actors.
func contracts(t *testing.T) (all []contract) {
	files, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			t.Fatal(err)
		}
		text := f.Doc.Text()
		if !strings.Contains(text, "Supervisor ") && !strings.Contains(text, "shell of package reconcile") {
			continue // no actor of its own
		}
		all = append(all, contract{f.Name.Name, string(new(doc.Package).Markdown(text))})
	}
	return all
}
