// Package law holds the rules of the house (DESIGN 8 and 10, STYLE 2) as code:
// each reads the module's source and says where it is broken. The tests run all
// of them on the module, and each of them on small sources that break it.
package law

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Module is where the module's packages begin.
const Module = "github.com/troupe-sh/troupe"

// Law is one rule.
type Law struct {
	Name  string
	Check func(Source) []string // what is wrong, each with its place
}

// Laws are all of them.
var Laws = []Law{
	{"an actor's contract is that of its Receive", contracts},
	{"an actor handles or logs every message", unknowns},
	{"work ends with its actor", cancels},
	{"actors use no clock, goroutine, dice or future", purity},
	{"imports point down", directions},
	{"foreign libraries stay behind our own packages", foreign},
	{"pure packages do no I/O", pure},
	{"ports and adapters return errors", panics},
	{"only commands end the process", exits},
	{"each package has one comment", comments},
	{"what is exported is documented", documents},
}

// Source is the module as it is written.
type Source struct {
	set      *token.FileSet
	packages []*pkg // by directory
}

type pkg struct {
	dir   string // "actors/pods"; "." is the module's root
	files []*file
}

type file struct {
	path      string
	test      bool // _test.go
	generated bool
	ast       *ast.File
	imports   map[string]string // import path by local name
}

// Load parses all Go files below the root of fsys, but other modules in it and
// what the go command leaves out too.
func Load(fsys fs.FS) (Source, error) {
	s := Source{set: token.NewFileSet()}
	byDir := map[string]*pkg{}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p == "." {
				return nil
			}
			base := path.Base(p)
			_, err := fs.Stat(fsys, path.Join(p, "go.mod"))
			if err == nil || base == "testdata" || base == "vendor" || base[0] == '.' || base[0] == '_' {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := s.parse(fsys, p)
		if err != nil {
			return err
		}
		dir := path.Dir(p)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
			s.packages = append(s.packages, byDir[dir])
		}
		byDir[dir].files = append(byDir[dir].files, f)
		return nil
	})
	return s, err
}

func (s Source) parse(fsys fs.FS, p string) (*file, error) {
	data, err := fs.ReadFile(fsys, p)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.ParseFile(s.set, p, data, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	f := &file{
		path: p, test: strings.HasSuffix(p, "_test.go"), generated: ast.IsGenerated(parsed),
		ast: parsed, imports: map[string]string{},
	}
	for _, i := range parsed.Imports {
		target, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		name := localName(target)
		if i.Name != nil {
			name = i.Name.Name
		}
		f.imports[name] = target
	}
	return f, nil
}

// localName guesses the name of an imported package, as its users spell it.
func localName(target string) string {
	name := path.Base(target)
	if len(name) > 1 && name[0] == 'v' && strings.Trim(name[1:], "0123456789") == "" {
		name = path.Base(path.Dir(target))
	}
	return name
}

// at is where a node stands.
func (s Source) at(n ast.Node) string {
	p := s.set.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// code is the package's files that end up in a binary.
func (p *pkg) code() []*file {
	return slices.DeleteFunc(slices.Clone(p.files), func(f *file) bool { return f.test })
}

// under tells whether the package stands in one of these directories.
func (p *pkg) under(dirs ...string) bool { return within(p.dir, dirs...) }

func within(dir string, dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return dir == d || strings.HasPrefix(dir, d+"/") })
}

// forTests tells whether the package is there for tests alone.
func (p *pkg) forTests() bool {
	base := path.Base(p.dir)
	return p.under("test") || strings.HasSuffix(base, "test") || base == "suite" || base == "fake" || base == "model"
}

// own is an import path as a directory of the module, if it is one.
func own(target string) (dir string, ok bool) {
	if target == Module {
		return ".", true
	}
	return strings.CutPrefix(target, Module+"/")
}

// selected is the import path and name of an expression like time.Now.
func (f *file) selected(n ast.Node) (target, name string) {
	s, ok := n.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return "", ""
	}
	return f.imports[x.Name], s.Sel.Name
}
