// Package supervise turns a declared tree into running actors: it starts them,
// restarts what fails within a budget, escalates past it as Erlang/OTP does,
// and tells how each of them fares. All actors of Troupe are started by it.
package supervise

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// Strategy is whom a group restarts when one of its children fails.
type Strategy uint8

// The strategies.
const (
	OneForOne  Strategy = iota // the failed child
	RestForOne                 // the failed child and those declared after it
)

func (s Strategy) String() string {
	if s == RestForOne {
		return "rest for one"
	}
	return "one for one"
}

// Budget is how often a supervisor restarts one child within a time. A failure
// past it is the supervisor's own: its supervisor restarts it, with all of its
// children, out of a budget of its own. But a declared Family leaves a child
// alone that fails past it, and tries it again once the time is over.
type Budget struct {
	Restarts int
	Within   time.Duration
}

func (b Budget) String() string { return fmt.Sprintf("%d in %s", b.Restarts, short(b.Within)) }

// short is 1m for 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// LeafBudget is what a Leaf grants children that it makes itself.
var LeafBudget = Budget{Restarts: 5, Within: 10 * time.Minute}

// Node is one place in a tree: Group, Leaf and Family make it.
type Node struct {
	Name     string
	Why      string         // one line: what it is for
	New      actor.Producer // nil for a group
	Strategy Strategy
	Budget   Budget // for each of its children
	Children []Node // of a group

	family bool
}

// Group is a supervisor that does nothing else. Its children are started in
// order; one that stops by itself counts as the group's own failure.
func Group(name string, s Strategy, b Budget, children ...Node) Node {
	return Node{Name: name, Strategy: s, Budget: b, Children: children}
}

// Leaf is one actor.
func Leaf(name, why string, p actor.Producer) Node {
	return Node{Name: name, Why: why, New: p, Budget: LeafBudget}
}

// Family is an actor that makes children at run time, with Spawn; b is what it
// grants each of them.
func Family(name, why string, b Budget, p actor.Producer) Node {
	return Node{Name: name, Why: why, New: p, Budget: b, family: true}
}

// Mermaid writes the tree below n as a flowchart, in the order of declaration.
func (n Node) Mermaid(w io.Writer) error {
	_, err := io.WriteString(w, "flowchart TD\n"+n.draw("", ""))
	return err
}

func (n Node) draw(parent, id string) string {
	id += "/" + n.Name
	label := n.Name
	if n.Why != "" {
		label += "<br/>" + strings.ReplaceAll(n.Why, `"`, "#quot;")
	}
	if n.New == nil {
		label += fmt.Sprintf("<br/><i>%s, %s</i>", n.Strategy, n.Budget)
	}
	if n.family {
		label += fmt.Sprintf("<br/><i>each child %s</i>", n.Budget)
	}
	// Mermaid takes no slash in an identifier, names have no underscore.
	key := strings.ReplaceAll(strings.TrimPrefix(id, "/"), "/", "_")
	out := fmt.Sprintf("  %s[\"%s\"]\n", key, label)
	if parent != "" {
		out += fmt.Sprintf("  %s --> %s\n", parent, key)
	}
	for _, c := range n.Children {
		out += c.draw(key, id)
	}
	return out
}

// check refuses a tree that could not be started.
func (n Node) check() error {
	if n.Name == "" || strings.Contains(n.Name, "/") {
		return fmt.Errorf("supervise: %q is no name of an actor: it must not be empty or contain a slash", n.Name)
	}
	seen := map[string]bool{}
	for _, c := range n.Children {
		if seen[c.Name] {
			return fmt.Errorf("supervise: %s has two children named %s", n.Name, c.Name)
		}
		seen[c.Name] = true
		if err := c.check(); err != nil {
			return err
		}
	}
	return nil
}
