package law

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// layers stand from the bottom to the top: a package imports its own and lower
// ones, and of its own height only what stands under the same roof.
var layers = [][]string{
	{"messages"},
	{"api"},
	{"cluster", "runtime", "netproxy", "dns"},
	{"actors"},
	{"gateway"},
	{"cmd", "test"},
}

func height(dir string) (layer int, roof string) {
	for i, roofs := range layers {
		for _, r := range roofs {
			if within(dir, r) {
				return i, r
			}
		}
	}
	return len(layers), ""
}

// adapters are known to commands and tests alone: who else needs one needs its port.
var adapters = []string{
	"cluster/journal/raftlog", "cluster/consul", "runtime/ctrd", "netproxy/nft", "netproxy/route", "dns/server",
}

// clients import nothing of the module but these: they must work from outside.
var clients = map[string][]string{
	"sdk":               {"sdk", "messages"},
	"messages":          {"messages"},
	"cmd/troupe":        {"cmd/internal", "sdk", "messages", "api", "runtime/sandbox", "runtime/cgroup"}, // the last two for down --purge
	"cmd/troupe-keeper": {"cmd/internal", "runtime/keeper"},
}

// directions finds imports of the module's own packages that point up or aside.
func directions(s Source) (wrong []string) {
	for _, p := range s.packages {
		layer, roof := height(p.dir)
		for _, f := range p.code() {
			for _, i := range f.ast.Imports {
				dir, ok := own(strings.Trim(i.Path.Value, `"`))
				if !ok {
					continue
				}
				if why := forbidden(p, layer, roof, dir); why != "" {
					wrong = append(wrong, fmt.Sprintf("%s: %s imports %s: %s", s.at(i), p.dir, dir, why))
				}
			}
		}
	}
	return wrong
}

func forbidden(p *pkg, layer int, roof, dir string) string {
	for client, allowed := range clients {
		if p.under(client) && !within(dir, allowed...) {
			return fmt.Sprintf("%s knows only %s", client, strings.Join(allowed, ", "))
		}
	}
	target, targetRoof := height(dir)
	imported := &pkg{dir: dir}
	switch {
	case p.under("test"):
		return ""
	case imported.under("test"):
		return "test is for tests"
	case imported.forTests() && !p.forTests():
		return "that is for tests"
	case imported.under("sdk") && !p.under("cmd", "examples", "sdk"):
		return "the SDK is for clients"
	case target > layer && !imported.under("sdk"):
		return "imports point down"
	case target == layer && targetRoof != roof:
		return fmt.Sprintf("%s and %s do not know each other", roof, targetRoof)
	case within(dir, adapters...) && !p.under("cmd") && !p.forTests() && !sameAdapter(p.dir, dir):
		return "an adapter is known to commands alone: use its port"
	case isKind(p.dir) && isKind(dir) && p.dir != dir:
		return "actor kinds meet in messages and api"
	case p.under(shared...) && isKind(dir) && !p.forTests():
		return "what kinds share knows none of them"
	case p.under(shared...) && dir == "actors" && !p.forTests():
		return "the tree is declared above"
	case isKind(p.dir) && dir == "actors":
		return "the tree is declared above"
	}
	return ""
}

func sameAdapter(a, b string) bool {
	return slices.ContainsFunc(adapters, func(d string) bool { return within(a, d) && within(b, d) })
}

// isKind tells whether a directory is one actor kind's.
func isKind(dir string) bool {
	return within(dir, "actors") && dir != "actors" && !within(dir, shared...)
}

// foreigners are libraries that only some of our packages may know; a longer
// path is decided before a shorter one.
var foreigners = []struct {
	library string
	known   []string
}{
	{"github.com/asynkron/protoactor-go/remote", []string{"actors/supervise", "actors/mailbox", "cluster"}},
	{"github.com/asynkron/protoactor-go/cluster", []string{"actors/supervise", "actors/mailbox", "cluster"}},
	{"github.com/asynkron/protoactor-go/scheduler", nil},
	{"github.com/asynkron/protoactor-go/router", nil},
	{"github.com/asynkron/protoactor-go/persistence", nil},
	{"github.com/asynkron/protoactor-go/stream", nil},
	{"github.com/asynkron/protoactor-go", []string{"actors", "cluster", "gateway", "cmd/trouped"}},
	{"k8s.io/kubernetes", []string{"api", "cluster/door", "gateway", "actors/scheduler", "runtime/pod", "runtime/probe", "runtime/volume", "runtime/stream"}},
	{"k8s.io/kubectl", []string{"cmd/troupe"}},
	{"github.com/hashicorp/raft", []string{"cluster/journal/raftlog", "cluster/membership"}},
	{"github.com/hashicorp/raft-boltdb", []string{"cluster/journal/raftlog"}},
	{"github.com/hashicorp/consul", []string{"cluster/consul"}},
	// troupe down --purge cleans up after an agent that is gone, and troupe doctor tries what one needs.
	{"github.com/containerd/containerd", []string{"runtime", "cmd/troupe", "cmd/internal/doctor"}},
	{"github.com/google/nftables", []string{"netproxy", "runtime/sandbox", "cmd/internal/doctor"}},
	{"github.com/miekg/dns", []string{"dns", "runtime/host"}}, // the latter reads resolv.conf
	{"github.com/vishvananda/netlink", []string{"runtime", "netproxy", "cmd/internal/doctor"}},
}

// foreign finds libraries where they must not be. Tests use what they like,
// except what DESIGN never wants.
func foreign(s Source) (wrong []string) {
	for _, p := range s.packages {
		for _, f := range p.files {
			for _, i := range f.ast.Imports {
				target := strings.Trim(i.Path.Value, `"`)
				for _, l := range foreigners {
					if !within(target, l.library) && !within(target, l.library+"/v2") {
						continue
					}
					inTest := (f.test || p.forTests()) && l.known != nil
					if !inTest && !p.under(l.known...) {
						wrong = append(wrong, fmt.Sprintf("%s: %s imports %s, which is known to %v alone", s.at(i), p.dir, target, l.known))
					}
					break
				}
			}
		}
	}
	return wrong
}

// purePackages read and decide; they reach nothing.
var purePackages = []string{"api", "messages", "netproxy/ruleset", "dns/zone", "runtime/pod"}

var reaching = []string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "golang.org/x/sys/unix", "log"}

// words are what such packages have to offer that does nothing.
var words = map[string][]string{
	"net/http": {"Status", "Method", "Header"},
	"syscall":  {"SIG", "Signal"},
}

// uses finds what a file uses of packages, but their words.
func (s Source) uses(f *file, packages []string) (found []string) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		target, name := f.selected(n)
		if !slices.Contains(packages, target) {
			return true
		}
		if !slices.ContainsFunc(words[target], func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			found = append(found, fmt.Sprintf("%s: %s.%s", s.at(n), target, name))
		}
		return true
	})
	return found
}

// pure finds I/O in pure packages, and in the file of an actor that decides.
func pure(s Source) (wrong []string) {
	for _, p := range s.packages {
		for _, f := range p.code() {
			if f.generated || !p.under(purePackages...) && !(p.under("actors") && strings.HasSuffix(f.path, "/state.go")) {
				continue
			}
			for _, use := range s.uses(f, reaching) {
				wrong = append(wrong, use+" in what only decides")
			}
		}
	}
	return wrong
}
