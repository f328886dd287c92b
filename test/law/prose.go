package law

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"strings"
)

// panics finds panics in ports and adapters: what fails there is an error that
// an actor understands, or its own panic. One that has no other way says so on
// its line or the one before.
func panics(s Source) (wrong []string) {
	for _, p := range s.packages {
		if !p.under("runtime", "cluster", "netproxy", "dns") || p.forTests() {
			continue
		}
		for _, f := range p.code() {
			if f.generated {
				continue
			}
			said := map[int]bool{} // lines that a comment ends on
			for _, group := range f.ast.Comments {
				said[s.set.Position(group.End()).Line] = true
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				line := s.set.Position(call.Pos()).Line
				if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" && !said[line] && !said[line-1] {
					wrong = append(wrong, s.at(n)+": panics: return an error, or say why there is no other way")
				}
				return true
			})
		}
	}
	return wrong
}

// exits finds ends of the process outside commands.
func exits(s Source) (wrong []string) {
	for _, p := range s.packages {
		for _, f := range p.files {
			if f.ast.Name.Name == "main" || f.generated {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				target, name := f.selected(n)
				// A test's TestMain has no other way.
				if target == "os" && name == "Exit" && !f.test || target == "log" && strings.HasPrefix(name, "Fatal") {
					wrong = append(wrong, fmt.Sprintf("%s: %s.%s outside a command: return an error", s.at(n), target, name))
				}
				return true
			})
		}
	}
	return wrong
}

// comments wants one comment for each package, in one file, that says which it is.
func comments(s Source) (wrong []string) {
	for _, p := range s.packages {
		files := p.code()
		if len(files) == 0 {
			files = p.files
		}
		var found []string
		for _, f := range files {
			if f.ast.Doc == nil {
				continue
			}
			found = append(found, f.path)
			text, want := f.ast.Doc.Text(), "Package "+f.ast.Name.Name+" "
			if f.ast.Name.Name == "main" {
				// As the go command's own: Command gofmt, or Gofmt.
				want = "Command " + path.Base(p.dir) + " "
				text = strings.Replace(text, strings.ToUpper(want[8:9])+want[9:], want, 1)
			}
			if !strings.HasPrefix(text, want) {
				wrong = append(wrong, fmt.Sprintf("%s: the package comment does not begin with %q", s.at(f.ast.Doc), want))
			}
		}
		if len(found) != 1 {
			wrong = append(wrong, fmt.Sprintf("%s: has %d package comments %v, want one", p.dir, len(found), found))
		}
	}
	return wrong
}

// documents wants a comment on everything exported.
func documents(s Source) (wrong []string) {
	for _, p := range s.packages {
		for _, f := range p.code() {
			if f.generated || f.ast.Name.Name == "main" {
				continue
			}
			for _, d := range f.ast.Decls {
				wrong = append(wrong, s.undocumented(d)...)
			}
		}
	}
	return wrong
}

func (s Source) undocumented(d ast.Decl) (wrong []string) {
	complain := func(n ast.Node, name string) { wrong = append(wrong, s.at(n)+": "+name+" has no comment") }
	switch d := d.(type) {
	case *ast.FuncDecl:
		// Methods that everybody knows, and those of types that nobody sees.
		if d.Recv != nil && (d.Name.Name == "String" || d.Name.Name == "Error" || !ast.IsExported(receiver(d))) {
			return nil
		}
		if d.Name.IsExported() && d.Doc == nil {
			complain(d, d.Name.Name)
		}
	case *ast.GenDecl:
		if d.Tok == token.IMPORT {
			return nil
		}
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
					complain(spec, spec.Name.Name)
				}
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					if name.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						complain(spec, name.Name)
					}
				}
			}
		}
	}
	return wrong
}

func receiver(d *ast.FuncDecl) string {
	return strings.TrimPrefix(written(d.Recv.List[0].Type), "*")
}
