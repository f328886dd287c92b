package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/klog/v2"

	"github.com/troupe-sh/troupe/actors"
	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/supervise"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/door"
	"github.com/troupe-sh/troupe/cluster/journal"
	"github.com/troupe-sh/troupe/cluster/journal/raftlog"
	"github.com/troupe-sh/troupe/cluster/journal/seal"
	"github.com/troupe-sh/troupe/cmd/internal/build"
	"github.com/troupe-sh/troupe/gateway"
	ownverbs "github.com/troupe-sh/troupe/gateway/agent"
	"github.com/troupe-sh/troupe/gateway/objects"
	"github.com/troupe-sh/troupe/messages"
	"github.com/troupe-sh/troupe/runtime/container"
	"github.com/troupe-sh/troupe/runtime/ctrd"
	"github.com/troupe-sh/troupe/runtime/keeper"
	"github.com/troupe-sh/troupe/runtime/pod"
	"github.com/troupe-sh/troupe/runtime/poddir"
	"github.com/troupe-sh/troupe/runtime/stream"
)

// answerWait is how long the registry may take to answer before its answer
// counts as lost, and the command is asked again under its ID.
const answerWait = 10 * time.Second

// agent is everything that one process runs.
type agent struct {
	options *options
	log     *slog.Logger
	system  *actor.ActorSystem
	level   *slog.LevelVar
	dns     atomic.Pointer[container.DNS] // the machine's own resolvers
	gc      atomic.Pointer[images.GC]
	gateway *gateway.Gateway
	journal journal.Journal
	sealer  *seal.Sealer
	fell    chan error // a tree's budget is spent

	mu      sync.Mutex
	closing bool
	node    *supervise.Running
	control *supervise.Running // nil while another member leads
}

// run is the agent's life; it ends in order when ctx does.
func run(ctx context.Context, o *options) (err error) {
	level := &slog.LevelVar{}
	level.Set(o.level)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})).With("node", o.Name)
	slog.SetDefault(log)
	klog.SetSlogLogger(log.With("library", "kubernetes"))
	if err := o.Dirs().Own(); err != nil {
		return err
	}
	for _, dir := range []string{o.DataDir, o.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	unlock, err := o.Dirs().Lock()
	if err != nil {
		return err
	}
	defer unlock()
	listener, err := listen(o.Socket)
	if err != nil {
		return err
	}
	defer listener.Close()
	a := &agent{options: o, log: log, level: level, system: supervise.NewSystem(log), fell: make(chan error, 2)}
	defer a.system.Shutdown()
	defer func() { err = errors.Join(err, a.close()) }()

	var keep *keeper.Client
	var runtime *ctrd.Runtime
	var starting errgroup.Group
	starting.Go(func() error { return a.openJournal() })
	starting.Go(func() (err error) {
		keep, runtime, err = a.openRuntime(ctx)
		return err
	})
	err = starting.Wait()
	if keep != nil {
		defer keep.Close()
	}
	if runtime != nil {
		defer runtime.Close()
	}
	if err != nil {
		return err
	}

	a.journal.Leadership(a.reign)
	if err := a.startMachine(ctx, runtime); err != nil {
		return err
	}
	server, err := a.serve(listener, runtime, keep)
	if err != nil {
		return err
	}
	defer server.Close()
	a.reloads(ctx)
	forget, err := o.Dirs().WritePID()
	if err != nil {
		return err
	}
	if err := a.guard(ctx, keep); err != nil {
		return err
	}
	log.Info("agent is up", "version", build.Version(), "socket", o.Socket)
	select {
	case <-ctx.Done():
		log.Info("agent stops")
		forget() // nobody starts it again
		return nil
	case err := <-a.fell:
		return err
	}
}

func (a *agent) openJournal() (err error) {
	dir, key := filepath.Join(a.options.DataDir, "journal"), filepath.Join(a.options.DataDir, "seal.key")
	if err := mayMakeKey(key, dir); err != nil {
		return err
	}
	if a.sealer, err = seal.Load(key); err != nil { // before there is a journal: the key is never younger
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	a.journal, err = raftlog.Open(raftlog.Options{Dir: dir, Log: a.log, Decode: a.sealer.Decoder(api.Decode)})
	return err
}

// guard asks the keeper to start this agent again when it ends without having
// been told to, if that is wished.
func (a *agent) guard(ctx context.Context, keep *keeper.Client) error {
	if !a.options.Restart {
		return nil
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	d := a.options.Dirs()
	return keep.Guard(ctx, keeper.Agent{
		PID: os.Getpid(), Args: append([]string{program}, os.Args[1:]...), Dir: dir, Env: os.Environ(),
		Output: d.Log(), PIDFile: d.PIDFile(),
	})
}

// mayMakeKey refuses to go on with a new key where a journal was sealed with
// another: its Secrets would be lost without a word.
func mayMakeKey(key, journal string) error {
	if _, err := os.Stat(key); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is missing, and %s holds Secrets that only it can open: put the file back, or begin anew with \"troupe down --purge\"", key, journal)
	}
	return nil
}

// reign starts the control tree with a reign and stops it with the end of it.
func (a *agent) reign(l journal.Leadership) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.control != nil {
		a.control.Stop()
		a.control = nil
	}
	if !l.Leader || a.closing {
		return
	}
	tree, err := supervise.Start(a.system, actors.Control(actors.ControlDeps{
		System: a.system, Journal: a.journal, Epoch: l.Epoch, Seal: a.sealer.Seal, PodCIDR: a.options.pods,
		Kernel: mailbox.Real(), Log: a.log,
	}), supervise.Options{Log: a.log, Fell: a.fall("control")})
	if err != nil {
		a.fall("control")(err)
		return
	}
	select { // from then on the registry hears what it is sent
	case <-tree.Ready():
	case <-tree.Done():
	}
	a.control = tree
}

// fall reports that a tree cannot go on; the process ends with it, and whoever
// started it is the last supervisor.
func (a *agent) fall(tree string) func(error) {
	return func(err error) {
		select {
		case a.fell <- fmt.Errorf("the %s tree gave up: %w", tree, err):
		default:
		}
	}
}

// trees are those that run now.
func (a *agent) trees() (trees []ownverbs.Trees) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range []*supervise.Running{a.control, a.node} {
		if t != nil {
			trees = append(trees, t)
		}
	}
	return trees
}

// commit asks the registry, as clients' requests do.
func (a *agent) commit(ctx context.Context, c *command.Commit) (*command.Committed, error) {
	wait := answerWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	answer, err := a.system.Root.RequestFuture(a.system.NewLocalPID(actors.RegistryPath), c, wait).Result()
	switch {
	case errors.Is(err, actor.ErrDeadLetter):
		return nil, apierrors.NewServiceUnavailable("no leader right now; try again")
	case err != nil:
		return nil, fmt.Errorf("%w: %w", journal.ErrUnknownOutcome, err)
	}
	return answer.(*command.Committed), nil
}

// usage asks the node tree.
func (a *agent) usage(ctx context.Context) (*pod.Usage, error) {
	wait := answerWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline))
	}
	answer, err := a.system.Root.RequestFuture(a.system.NewLocalPID(actors.UsagePath), pod.AskUsage{}, wait).Result()
	if err != nil {
		return nil, err
	}
	u := answer.(pod.UsageOf)
	return u.Usage, u.Err
}

// listen opens the socket to clients; who connects waits for serve. The socket
// carries root's rights, so nobody else may open it at any moment: the umask is
// the whole process's, which must do nothing else meanwhile.
func listen(socket string) (net.Listener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen for clients: %w", err)
	}
	return netutil.LimitListener(listener, maxClients), nil
}

// maxClients are the connections at once; who comes later waits. Each takes a
// file of the process, which journal and containers need as well.
const maxClients = 4000

// serve answers clients.
func (a *agent) serve(listener net.Listener, runtime *ctrd.Runtime, keep *keeper.Client) (*http.Server, error) {
	g, err := gateway.New(gateway.Config{
		Door:    door.New(door.Config{Hub: a.journal.Hub(), Commit: a.commit, Verify: a.journal.VerifyLeader}),
		Streams: stream.New(stream.Config{Runtime: runtime, LogDir: poddir.LogDir(a.options.DataDir), Drain: keep.Drain, Attach: keep.Attach, Log: a.log}),
		Node:    a.options.Name,
		Usage:   a.usage,
		Ready:   a.ready,
		Version: version.Info{Major: "1", Minor: "36", GitVersion: build.Kubernetes() + "+troupe", Platform: "linux"},
		Log:     a.log,
	})
	if err != nil {
		return nil, err
	}
	a.gateway = g
	a.apply()
	own := ownverbs.New(ownverbs.Deps{
		Version: &messages.Version{Troupe: build.Version(), Kubernetes: build.Kubernetes(), Go: goruntime.Version(), Node: a.options.Name},
		Trees:   a.trees,
		Runtime: announcing{runtime, a.system},
		Pull:    a.pull,
		Log:     a.log,
	})
	messages.RegisterObjectsServer(own, objects.New(g.Handler(nil)))
	server := g.Server(own)
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			a.fall("gateway")(err)
		}
	}()
	return server, nil
}

// ready says why the agent does not serve yet.
func (a *agent) ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.control == nil {
		return errors.New("no leader")
	}
	return nil
}

// close stops the trees, then the journal that they stand on.
func (a *agent) close() error {
	a.mu.Lock()
	a.closing = true
	for _, tree := range []*supervise.Running{a.node, a.control} {
		if tree != nil {
			tree.Stop()
		}
	}
	a.node, a.control = nil, nil
	a.mu.Unlock() // the journal may be telling of leadership
	if a.journal == nil {
		return nil
	}
	return a.journal.Close()
}
