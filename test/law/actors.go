package law

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// shared are the packages below actors that are no actor kinds: the kit, and
// what kinds have in common.
var shared = []string{
	"actors/supervise", "actors/mailbox", "actors/actortest", "actors/controltest", "actors/nodetest",
	"actors/reconcile", "actors/family", "actors/writer",
}

// kit is what makes actors: it may do what they must not.
var kit = []string{"actors/supervise", "actors/mailbox", "actors/actortest", "actors/controltest", "actors/nodetest"}

// actorPackages are those whose actors keep rule 8.
func (s Source) actorPackages() (out []*pkg) {
	for _, p := range s.packages {
		if p.under("actors") && !p.under(kit...) {
			out = append(out, p)
		}
	}
	return out
}

// receives tells whether the package has an actor of its own.
func (p *pkg) receives() bool {
	for _, f := range p.code() {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.Name == "Receive" {
				return true
			}
		}
	}
	return false
}

// switches calls visit for every switch on the type of an actor's message.
func (p *pkg) switches(visit func(f *file, fn *ast.FuncDecl, s *ast.TypeSwitchStmt)) {
	for _, f := range p.code() {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.TypeSwitchStmt); ok && onMessage(s) {
					visit(f, fn, s)
				}
				return true
			})
		}
	}
}

// onMessage recognises switch m := ctx.Message().(type).
func onMessage(s *ast.TypeSwitchStmt) bool {
	found := false
	ast.Inspect(s.Assign, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 0 {
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "Message" {
				found = true
			}
		}
		return !found
	})
	return found
}

// cases are the types that a switch names, as they are written.
func cases(s *ast.TypeSwitchStmt) (names []string, other bool) {
	for _, stmt := range s.Body.List {
		clause := stmt.(*ast.CaseClause)
		other = other || clause.List == nil
		for _, e := range clause.List {
			names = append(names, written(e))
		}
	}
	return names, other
}

func written(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return "*" + written(e.X)
	case *ast.SelectorExpr:
		return written(e.X) + "." + e.Sel.Name
	case *ast.Ident:
		return e.Name
	case *ast.IndexExpr:
		return written(e.X)
	}
	return "?"
}

// contractKeys are the lines of an actor package's comment.
var contractKeys = []string{"Supervisor", "Accepts", "Emits", "On restart"}

// contracts compares what an actor package says that it accepts with what its
// switches on messages name: exported types, but those of the library.
func contracts(s Source) (wrong []string) {
	for _, p := range s.actorPackages() {
		if !p.receives() {
			continue
		}
		doc, where := "", p.dir
		for _, f := range p.code() {
			if f.ast.Doc != nil {
				doc, where = f.ast.Doc.Text(), s.at(f.ast.Doc)
			}
		}
		lines := contract(doc)
		for _, key := range contractKeys {
			if lines[key] == "" {
				wrong = append(wrong, fmt.Sprintf("%s: the package comment has no line %q", where, key))
			}
		}
		if lines["Accepts"] == "" {
			continue
		}
		says := strings.Fields(lines["Accepts"])
		if says[0] == "nothing" {
			says = nil
		}
		var does []string
		p.switches(func(_ *file, _ *ast.FuncDecl, sw *ast.TypeSwitchStmt) {
			names, _ := cases(sw)
			for _, name := range names {
				if accepted(name) {
					does = append(does, name)
				}
			}
		})
		for _, list := range []*[]string{&says, &does} {
			slices.Sort(*list)
			*list = slices.Compact(*list)
		}
		if !slices.Equal(says, does) {
			wrong = append(wrong, fmt.Sprintf("%s: accepts %v by its comment, %v by its code", where, says, does))
		}
	}
	return wrong
}

// accepted tells whether a type belongs into Accepts.
func accepted(name string) bool {
	bare := strings.TrimPrefix(name, "*")
	qualifier, base, qualified := strings.Cut(bare, ".")
	if !qualified {
		base = qualifier
	} else if qualifier == "actor" {
		return false
	}
	return ast.IsExported(base)
}

// contract reads the lines of a package comment that begin with a key; a line
// that does not goes on with the one before.
func contract(doc string) map[string]string {
	lines := map[string]string{}
	last := ""
	for line := range strings.Lines(doc) {
		line = strings.TrimSpace(line)
		if line == "" {
			last = ""
			continue
		}
		for _, key := range contractKeys {
			if rest, ok := strings.CutPrefix(line, key+" "); ok {
				last, line = key, rest
			}
		}
		if last != "" {
			lines[last] = strings.TrimSpace(lines[last] + " " + strings.TrimSpace(line))
		}
	}
	return lines
}

// unknowns finds a Receive that drops what it does not know.
func unknowns(s Source) (wrong []string) {
	for _, p := range s.actorPackages() {
		p.switches(func(_ *file, fn *ast.FuncDecl, sw *ast.TypeSwitchStmt) {
			if _, other := cases(sw); fn.Name.Name == "Receive" && !other {
				wrong = append(wrong, s.at(sw)+": has no default, so it drops unknown messages in silence")
			}
		})
	}
	return wrong
}

// cancels finds actors whose work in flight outlives them.
func cancels(s Source) (wrong []string) {
	for _, p := range s.actorPackages() {
		if !p.receives() {
			continue
		}
		var makes ast.Node
		for _, f := range p.code() {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				// Kernel.New(), however the Kernel is called
				if call, ok := n.(*ast.CallExpr); ok && len(call.Args) == 0 {
					if sel, ok := call.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "New" && strings.HasSuffix(strings.ToLower(written(sel.X)), "kernel") {
						makes = n
					}
				}
				return true
			})
		}
		if makes == nil {
			continue
		}
		for _, message := range []string{"*actor.Stopping", "*actor.Restarting"} {
			found := false
			p.switches(func(_ *file, _ *ast.FuncDecl, sw *ast.TypeSwitchStmt) {
				for _, stmt := range sw.Body.List {
					clause := stmt.(*ast.CaseClause)
					for _, e := range clause.List {
						found = found || written(e) == message && len(clause.Body) > 0
					}
				}
			})
			if !found {
				wrong = append(wrong, fmt.Sprintf("%s: makes Work, but does nothing (Cancel) at %s", s.at(makes), message))
			}
		}
	}
	return wrong
}

// impure is what actors reach by mailbox.Work or not at all, by import path.
var impure = map[string][]string{
	"time":    {"Now", "Sleep", "After", "AfterFunc", "NewTimer", "NewTicker", "Tick", "Since", "Until"},
	"runtime": {"Gosched"},
	"github.com/asynkron/protoactor-go/actor": {"NewFuture"},
}

// unreachable are packages that an actor has no business with; its ports have.
var unreachable = []string{"math/rand", "math/rand/v2", "crypto/rand", "os", "os/exec", "net", "net/http", "syscall"}

// blocking are methods of the library that wait, look at the clock, or make
// actors that nobody supervises.
var blocking = map[string]string{
	"RequestFuture": "an actor waits for nobody: Request, and handle the answer as a message",
	"StopFuture":    "an actor waits for nobody: Stop, and handle *actor.Terminated",
	"PoisonFuture":  "an actor waits for nobody: Poison, and handle *actor.Terminated",
	"ReenterAfter":  "it runs closures of a dead instance on the new one: use mailbox.Work",
	"Stash":         "it turns the order round and loses senders: keep a list of your own",

	"SetReceiveTimeout": "it looks at the clock: use mailbox.Work's After",
	"SpawnNamed":        "nobody supervises it: use supervise.Spawn",
	"SpawnPrefix":       "nobody supervises it: use supervise.Spawn",
}

// purity finds what actors must not do.
func purity(s Source) (wrong []string) {
	for _, p := range s.actorPackages() {
		for _, f := range p.code() {
			for _, use := range s.uses(f, unreachable) {
				wrong = append(wrong, use+" is not for actors: a port does that")
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if target, name := f.selected(n); slices.Contains(impure[target], name) {
					wrong = append(wrong, fmt.Sprintf("%s: %s is not for actors: use mailbox.Work", s.at(n), written(n.(ast.Expr))))
				}
				switch n := n.(type) {
				case *ast.GoStmt:
					wrong = append(wrong, s.at(n)+": an actor starts no goroutine: use mailbox.Work's Go")
				case *ast.CallExpr:
					sel, ok := n.Fun.(*ast.SelectorExpr)
					if !ok {
						break
					}
					why, bad := blocking[sel.Sel.Name]
					if target, _ := f.selected(sel); sel.Sel.Name == "Spawn" && target != Module+"/actors/supervise" {
						why, bad = blocking["SpawnNamed"], true
					}
					if bad {
						wrong = append(wrong, fmt.Sprintf("%s: %s: %s", s.at(n), sel.Sel.Name, why))
					}
				}
				return true
			})
		}
	}
	return wrong
}
