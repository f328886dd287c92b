package law

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// sources makes a module of these files.
func sources(t *testing.T, files map[string]string) Source {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	s, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const contractDoc = `// Package pods keeps pods.
//
//	Supervisor  control: 5 in 10m
//	Accepts     *command.Committed pod.Look
//	            *Ask
//	Emits       *command.Commit
//	On restart  looks again
`

// actorFile is an actor that keeps every law, with parts to be replaced.
const actorFile = contractDoc + `package pods

import (
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api/command"
)

// New makes one.
func New(c Config) actor.Producer {
	return func() actor.Actor { return &pods{work: c.Kernel.New()} }
}

func (p *pods) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started, late, *gone:
		supervise.Spawn(ctx, child)
	case *command.Committed, pod.Look:
		p.work.After(ctx, time.Second, late{})
	case *Ask:
		switch p.kind(m).(type) {
		case *command.Other:
		}
	case *actor.Stopping, *actor.Restarting:
		p.work.Cancel()
	default:
	}
}
`

// edited is the good actor with a part of it replaced.
func edited(t *testing.T, was, is string) map[string]string {
	t.Helper()
	if !strings.Contains(actorFile, was) {
		t.Fatalf("the sample has no %q", was)
	}
	return map[string]string{"actors/pods/pods.go": strings.Replace(actorFile, was, is, 1)}
}

func doing(t *testing.T, statement string) map[string]string {
	t.Helper()
	return edited(t, "	default:\n", "	case more:\n"+statement+"\n	default:\n")
}

func importing(t *testing.T, dir, target string) map[string]string {
	t.Helper()
	return map[string]string{dir + "/x.go": "// Package x is.\npackage x\n\nimport _ \"" + target + "\"\n"}
}

func body(dir, clause, code string) map[string]string {
	return map[string]string{dir + "/x.go": "// Package " + clause + " is.\npackage " + clause + "\n" + code}
}

func TestEachLawFindsWhatBreaksIt(t *testing.T) {
	us := Module + "/"
	for name, broken := range map[string]struct {
		law   string
		files map[string]string
		says  string
	}{
		"a message too many":         {Laws[0].Name, edited(t, "*command.Committed, pod.Look", "*command.Committed, pod.Look, journal.Gone"), "journal.Gone"},
		"a message too few":          {Laws[0].Name, edited(t, "*command.Committed, pod.Look", "*command.Committed"), "pod.Look"},
		"a value for a pointer":      {Laws[0].Name, edited(t, "case *Ask", "case Ask"), "accepts"},
		"self-messages in Accepts":   {Laws[0].Name, edited(t, "*command.Committed pod.Look", "*command.Committed pod.Look late"), "late"},
		"no contract":                {Laws[0].Name, edited(t, "//	Accepts     *command.Committed pod.Look\n//	            *Ask\n", ""), `no line "Accepts"`},
		"no word about restarts":     {Laws[0].Name, edited(t, "//	On restart  looks again\n", ""), `no line "On restart"`},
		"unknown messages dropped":   {Laws[1].Name, edited(t, "	default:\n", ""), "no default"},
		"work that outlives it":      {Laws[2].Name, edited(t, "*actor.Stopping, *actor.Restarting", "*actor.Stopping"), "*actor.Restarting"},
		"work that is not cancelled": {Laws[2].Name, edited(t, "		p.work.Cancel()\n", ""), "*actor.Stopping"},
		"time.Now":                   {Laws[3].Name, doing(t, "_ = time.Now()"), "time.Now"},
		"time.Now as a value":        {Laws[3].Name, doing(t, "p.now = time.Now"), "time.Now"},
		"time.Sleep":                 {Laws[3].Name, doing(t, "time.Sleep(1)"), "time.Sleep"},
		"a goroutine":                {Laws[3].Name, doing(t, "go f()"), "goroutine"},
		"a future":                   {Laws[3].Name, doing(t, "ctx.RequestFuture(pid, m, 1)"), "RequestFuture"},
		"a stash":                    {Laws[3].Name, doing(t, "ctx.Stash()"), "Stash"},
		"a child without supervisor": {Laws[3].Name, doing(t, "ctx.Spawn(props)"), "Spawn"},
		"a named one":                {Laws[3].Name, doing(t, `ctx.SpawnNamed(props, "x")`), "SpawnNamed"},
		"dice":                       {Laws[3].Name, body("actors/pods", "pods", "import \"math/rand/v2\"\n\nvar x = rand.Int()\n"), "math/rand"},
		"files":                      {Laws[3].Name, body("actors/pods", "pods", "import \"os\"\n\nvar x = os.Args\n"), "os.Args"},

		"upwards":                     {Laws[4].Name, importing(t, "cluster/journal", us+"actors/pods"), "point down"},
		"from api to journal":         {Laws[4].Name, importing(t, "api", us+"cluster/journal"), "point down"},
		"aside":                       {Laws[4].Name, importing(t, "cluster/feed", us+"runtime/container"), "do not know each other"},
		"an actor kind to another":    {Laws[4].Name, importing(t, "actors/pods", us+"actors/scheduler"), "actor kinds"},
		"what is shared to a kind":    {Laws[4].Name, importing(t, "actors/reconcile", us+"actors/pods"), "knows none"},
		"a kind to the tree":          {Laws[4].Name, importing(t, "actors/pods", us+"actors"), "declared above"},
		"an actor to an adapter":      {Laws[4].Name, importing(t, "actors/pods", us+"runtime/ctrd"), "use its port"},
		"a port to its adapter":       {Laws[4].Name, importing(t, "cluster/journal", us+"cluster/journal/raftlog"), "use its port"},
		"the agent to a fake":         {Laws[4].Name, importing(t, "cmd/trouped", us+"runtime/container/fake"), "for tests"},
		"the agent to the simulation": {Laws[4].Name, importing(t, "cmd/trouped", us+"test/sim"), "for tests"},
		"the SDK to anything":         {Laws[4].Name, importing(t, "sdk", us+"api"), "knows only"},
		"the gateway to the SDK":      {Laws[4].Name, importing(t, "gateway/agent", us+"sdk"), "for clients"},
		"the keeper to the runtime":   {Laws[4].Name, importing(t, "cmd/troupe-keeper", us+"runtime/ctrd"), "knows only"},

		"protoactor's remote":          {Laws[5].Name, importing(t, "gateway", "github.com/asynkron/protoactor-go/remote"), "remote"},
		"protoactor's cluster, tested": {Laws[5].Name, map[string]string{"actors/pods/x_test.go": "package pods\n\nimport _ \"github.com/asynkron/protoactor-go/router\"\n"}, "router"},
		"Kubernetes in an actor":       {Laws[5].Name, importing(t, "actors/pods", "k8s.io/kubernetes/pkg/apis/core"), "k8s.io/kubernetes"},
		"containerd in an actor":       {Laws[5].Name, importing(t, "actors/pods", "github.com/containerd/containerd/v2/client"), "containerd"},
		"raft in the agent":            {Laws[5].Name, importing(t, "cmd/trouped", "github.com/hashicorp/raft"), "raft"},

		"os in api":            {Laws[6].Name, body("api", "api", "import \"os\"\n\nvar x = os.Args\n"), "os.Args"},
		"net in a state":       {Laws[6].Name, map[string]string{"actors/pods/state.go": "package pods\n\nimport \"net\"\n\nvar x = net.Dial\n"}, "net.Dial"},
		"panic in a port":      {Laws[7].Name, body("runtime/ctrd", "ctrd", "\nfunc f() { panic(1) }\n"), "panics"},
		"exit in a package":    {Laws[8].Name, body("gateway", "gateway", "import \"os\"\n\nfunc f() { os.Exit(1) }\n"), "os.Exit"},
		"log.Fatal":            {Laws[8].Name, body("gateway", "gateway", "import \"log\"\n\nfunc f() { log.Fatalf(\"\") }\n"), "log.Fatalf"},
		"no package comment":   {Laws[9].Name, map[string]string{"dns/zone/x.go": "package zone\n"}, "has 0 package comments"},
		"two package comments": {Laws[9].Name, map[string]string{"dns/zone/x.go": "// Package zone is.\npackage zone\n", "dns/zone/y.go": "// Package zone is.\npackage zone\n"}, "has 2 package comments"},
		"a licence for it":     {Laws[9].Name, map[string]string{"dns/zone/x.go": "// Copyright.\npackage zone\n"}, "does not begin"},
		"a command's comment":  {Laws[9].Name, map[string]string{"cmd/troupe/x.go": "// Package main runs.\npackage main\n"}, "does not begin"},
		"a bare function":      {Laws[10].Name, body("api", "api", "\nfunc F() {}\n"), "F has no comment"},
		"a bare method":        {Laws[10].Name, body("api", "api", "\nfunc (x *X) F() {}\n"), "F has no comment"},
		"a bare type":          {Laws[10].Name, body("api", "api", "\ntype X int\n"), "X has no comment"},
		"a bare constant":      {Laws[10].Name, body("api", "api", "\nconst X = 1\n"), "X has no comment"},
	} {
		t.Run(name, func(t *testing.T) {
			s := sources(t, broken.files)
			for _, l := range Laws {
				if l.Name == broken.law {
					if wrong := l.Check(s); len(wrong) != 1 && name != "work that is not cancelled" || !strings.Contains(strings.Join(wrong, "\n"), broken.says) {
						t.Errorf("%s: found %q, want one that says %q", l.Name, wrong, broken.says)
					}
				}
			}
		})
	}
}

func TestGoodSourcesBreakNoLaw(t *testing.T) {
	s := sources(t, map[string]string{
		"actors/pods/pods.go":          actorFile,
		"actors/pods/pods_test.go":     "package pods\n\nimport \"time\"\n\nfunc f() { go time.Sleep(1) }\n",
		"actors/quiet/quiet.go":        strings.NewReplacer("pods", "quiet", "*command.Committed pod.Look\n//	            *Ask", "nothing but what it tells itself", "*command.Committed, pod.Look", "seen", "*Ask", "asked").Replace(actorFile),
		"actors/pods/state.go":         "package pods\n\nimport (\n\t\"net/http\"\n\t\"net/netip\"\n\t\"syscall\"\n)\n\nvar x, y, z = http.StatusOK, netip.Addr{}, syscall.SIGTERM\n",
		"runtime/ctrd/ctrd.go":         "// Package ctrd is.\npackage ctrd\n\nfunc f() {\n\t// The library leaves no other way.\n\tpanic(1)\n}\n\nfunc g() { panic(2) } // strings always encode\n",
		"runtime/container/fake/f.go":  "// Package fake is.\npackage fake\n\nimport _ \"" + Module + "/runtime/container\"\n\nfunc f() { panic(1) }\n",
		"cmd/trouped/main.go":          "// Command trouped is.\npackage main\n\nimport (\n\t\"os\"\n\n\t_ \"" + Module + "/runtime/ctrd\"\n)\n\nfunc main() { os.Exit(1) }\n",
		"cmd/troupe-keeper/main.go":    "// Troupe-keeper writes.\npackage main\n",
		"test/e2e/e2e_test.go":         "// Package e2e tests.\npackage e2e\n",
		"api/testdata/bad.go":          "package ???",
		"tools/go.mod":                 "module tools\n",
		"tools/tools.go":               "package tools\n",
		"messages/x.pb.go":             "// Code generated by protoc. DO NOT EDIT.\n\n// Package messages is.\npackage messages\n\nimport \"os\"\n\nvar X = os.Args\n",
		"api/api.go":                   "// Package api is.\npackage api\n\n// The kinds.\nconst (\n\tA = 1\n\tB = 2\n)\n\ntype hidden int\n\nfunc (h hidden) Seen() {}\n\n// X is.\ntype X int\n\nfunc (x X) String() string { return \"\" }\n",
		"cluster/journal/raftlog/x.go": "// Package raftlog is.\npackage raftlog\n\nimport _ \"github.com/hashicorp/raft\"\n",
	})
	for _, l := range Laws {
		if wrong := l.Check(s); len(wrong) != 0 {
			t.Errorf("%s: %q", l.Name, wrong)
		}
	}
}

func TestLoadFindsTheModule(t *testing.T) {
	s := sources(t, map[string]string{"b/x.go": "package b", "a/x.go": "package a", "a/c/x.go": "package c", ".git/x.go": "package ???", "_old/x.go": "package ???"})
	var dirs []string
	for _, p := range s.packages {
		dirs = append(dirs, p.dir)
	}
	if want := []string{"a/c", "a", "b"}; !slices.Equal(dirs, want) {
		t.Errorf("packages %q, want %q", dirs, want)
	}
	if _, err := Load(fstest.MapFS{"a/x.go": &fstest.MapFile{Data: []byte("package ???")}}); err == nil {
		t.Error("source that does not parse is taken")
	}
}
