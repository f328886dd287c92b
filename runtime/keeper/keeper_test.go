package keeper_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/troupe-sh/troupe/runtime/keeper"
	"github.com/troupe-sh/troupe/runtime/keeper/daemon"
	"golang.org/x/sys/unix"
)

// The test binary is also the keeper and the agent.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case "--run-dir":
			err = keeperRole(os.Args[2])
		case "agent":
			err = agentRole(os.Args[2], os.Args[3:])
		case "guarded":
			err = guardedRole(os.Args[2])
		case "init":
			err = daemon.Init()
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func keeperRole(runDir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	ready := os.NewFile(3, "ready")
	err := daemon.Run(ctx, daemon.Config{
		RunDir: runDir,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Ready:  func() { fmt.Fprint(ready, "ok"); ready.Close() },
	})
	if err != nil {
		fmt.Fprint(ready, err)
	}
	return err
}

// agentRole follows the containers and waits to be killed.
func agentRole(dir string, ids []string) error {
	ctx := context.Background()
	c, err := keeper.Start(ctx, config(dir, slog.New(slog.NewTextHandler(os.Stderr, nil))))
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := c.Follow(ctx, logOf(dir, id)); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	select {}
}

func config(dir string, log *slog.Logger) keeper.Config {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return keeper.Config{Path: exe, RunDir: dir, DataDir: dir, Log: log}
}

func logOf(dir, id string) keeper.Log {
	return keeper.Log{
		ContainerID: id,
		Stdout:      filepath.Join(dir, "io", id, "stdout"),
		Stderr:      filepath.Join(dir, "io", id, "stderr"),
		Path:        filepath.Join(dir, "logs", id, "0.log"),
		MaxSize:     256 << 10,
		MaxFiles:    10000,
	}
}

// runDir is short: a socket's path must be.
func runDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/tmp", "keeper")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(filepath.Join(dir, "keeper.log"))
			t.Logf("keeper.log:\n%s", b)
		}
		os.RemoveAll(dir)
	})
	return dir
}

func start(t testing.TB, cfg keeper.Config) *keeper.Client {
	t.Helper()
	c, err := keeper.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Errorf("stop the keeper: %v", err)
		}
	})
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// keeperPID asks the socket who listens there.
func keeperPID(dir string) (int, error) {
	conn, err := net.Dial("unix", keeper.Socket(dir))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// shim holds both ends of a FIFO, as containerd's does.
type shim struct{ w, r *os.File }

func openShim(t testing.TB, path string) *shim {
	t.Helper()
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &shim{w, r}
}

func (s *shim) close() { s.w.Close(); s.r.Close() }

// output is numbered lines of all sizes, the last without its newline.
func output(seed uint64, lines int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	var b bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&b, "line %d ", i)
		switch r.IntN(100) {
		case 0:
			b.WriteString(strings.Repeat("x", r.IntN(50_000)))
		case 1:
			b.WriteString("\n") // an empty line
		default:
			b.WriteString(strings.Repeat("y", r.IntN(200)))
		}
		b.WriteByte('\n')
	}
	b.WriteString("no newline at the end")
	return b.Bytes()
}

// write writes b in pieces of all sizes and calls between after each.
func (s *shim) write(seed uint64, b []byte, between func(written int)) error {
	r := rand.New(rand.NewPCG(seed, 2))
	for off := 0; off < len(b); {
		n := min(len(b)-off, 1+r.IntN(4096))
		if _, err := s.w.Write(b[off : off+n]); err != nil {
			return err
		}
		off += n
		if between != nil {
			between(off)
		}
	}
	return nil
}

// logged reads back what a log with its rotated files holds of a stream.
func logged(t testing.TB, path, stream string) []byte {
	t.Helper()
	files, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	var out []byte
	for _, file := range append(files, path) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			parts := bytes.SplitN(bytes.TrimSuffix(line, []byte("\n")), []byte(" "), 4)
			if len(parts) != 4 || !bytes.HasSuffix(line, []byte("\n")) {
				t.Fatalf("%s: bad entry %.100q", file, line)
			}
			if _, err := time.Parse(time.RFC3339Nano, string(parts[0])); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if string(parts[1]) != stream {
				continue
			}
			out = append(out, parts[3]...)
			if string(parts[2]) == "F" {
				out = append(out, '\n')
			}
		}
	}
	return out
}

// same compares without printing megabytes.
func same(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	t.Errorf("%s: %d bytes, want %d; from byte %d on: got %.80q, want %.80q", what, len(got), len(want), i, got[i:], want[i:])
}

// load writes to both streams of containers, and reports what each stream wrote.
type load struct {
	ids  []string
	sent [][2][]byte
	wg   sync.WaitGroup
	errs chan error
}

func startLoad(t testing.TB, dir string, containers, lines int, between func(written int)) *load {
	l := &load{errs: make(chan error, 2*containers)}
	for i := range containers {
		id := "c" + strconv.Itoa(i)
		l.ids = append(l.ids, id)
		var sent [2][]byte
		want := logOf(dir, id)
		for j, path := range want.FIFOs() {
			seed := uint64(2*i + j)
			sent[j] = output(seed, lines)
			s := openShim(t, path)
			l.wg.Go(func() {
				defer s.close()
				if err := s.write(seed, sent[j], between); err != nil {
					l.errs <- err
				}
			})
		}
		l.sent = append(l.sent, sent)
	}
	return l
}

func (l *load) check(t *testing.T, c *keeper.Client, dir string) {
	t.Helper()
	l.wg.Wait()
	close(l.errs)
	for err := range l.errs {
		t.Error(err)
	}
	for i, id := range l.ids {
		if err := c.Drain(t.Context(), id); err != nil {
			t.Error(err)
		}
		for j, stream := range []string{"stdout", "stderr"} {
			same(t, id+" "+stream, logged(t, logOf(dir, id).Path, stream), l.sent[i][j])
		}
		if err := c.Forget(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
	logs, err := c.List(t.Context())
	if err != nil || len(logs) > 0 {
		t.Errorf("followed after Forget: %v, %v", logs, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "keeper", "c*")); len(left) > 0 {
		t.Errorf("state left: %v", left)
	}
}

func TestEveryByteIsLogged(t *testing.T) {
	dir := runDir(t)
	c := start(t, config(dir, quiet()))
	for _, id := range []string{"c0", "c1", "c2"} {
		if err := c.Follow(t.Context(), logOf(dir, id)); err != nil {
			t.Fatal(err)
		}
	}
	startLoad(t, dir, 3, 2000, nil).check(t, c, dir)
}

func TestAgentKilledUnderLoad(t *testing.T) {
	dir := runDir(t)
	const containers = 3
	var ids []string
	for i := range containers {
		ids = append(ids, "c"+strconv.Itoa(i))
	}
	kill := startAgent(t, dir, ids)
	// The load waits at some points until the agent was killed there, and goes on while it is away.
	turn := make(chan struct{})
	var once sync.Mutex
	at := 0
	l := startLoad(t, dir, containers, 3000, func(written int) {
		once.Lock()
		defer once.Unlock()
		if at++; at%200 == 0 && at <= 1000 {
			turn <- struct{}{}
		}
	})
	before, err := keeperPID(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		<-turn
		kill()
		kill = startAgent(t, dir, ids)
	}
	kill()
	c := start(t, config(dir, quiet()))
	l.check(t, c, dir)
	if after, err := keeperPID(dir); err != nil || after != before {
		t.Errorf("keeper %d became %d, %v", before, after, err)
	}
}

// startAgent runs an agent in a process of its own and returns what kills it.
func startAgent(t *testing.T, dir string, ids []string) func() {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{"agent", dir}, ids...)...)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = exe
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	t.Cleanup(stop)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("agent said %q, %v", line, err)
	}
	return stop
}

func TestKeeperKilledUnderLoad(t *testing.T) {
	kills := 20
	if s := os.Getenv("KEEPER_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := runDir(t)
	cfg := config(dir, quiet())
	cfg.RestartMax = time.Millisecond
	c := start(t, cfg)
	const containers = 3
	for i := range containers {
		if err := c.Follow(t.Context(), logOf(dir, "c"+strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
	}
	// Each kill lets every stream write 60 kB more, so that there is work to die at until the last.
	var mu sync.Mutex
	allowed, next := 60_000, sync.NewCond(&mu)
	l := startLoad(t, dir, containers, 150*kills, func(written int) {
		mu.Lock()
		defer mu.Unlock()
		for written > allowed {
			next.Wait()
		}
	})
	allow := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		allowed = n
		next.Broadcast()
	}
	for i := range kills {
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		pid, err := keeperPID(dir)
		if err != nil {
			t.Fatal(err)
		}
		allow(60_000 * (i + 2))
		grow(t, logOf(dir, "c0").Path, 1+i%4)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatal(err)
		}
	}
	allow(1 << 40)
	l.check(t, c, dir)
}

// grow waits until path was written to n times, or not at all any more.
func grow(t *testing.T, path string, n int) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	for range n {
		_ = f.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := f.Read(make([]byte, 4096)); err != nil {
			return
		}
	}
}

func TestContainerEndsWhileKeeperIsDead(t *testing.T) {
	dir := runDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	cfg := config(dir, quiet())
	cfg.Path = program
	c := start(t, cfg)
	l := logOf(dir, "c0")
	if err := c.Follow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	out, errs := openShim(t, l.Stdout), openShim(t, l.Stderr)
	pid, err := keeperPID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(program); err != nil { // it cannot start again for now
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(out.w, "last words\n")
	fmt.Fprint(errs.w, "and these")
	out.close()
	errs.close()
	if err := os.Symlink(exe, program); err != nil {
		t.Fatal(err)
	}
	if err := c.Forget(t.Context(), "c0"); err != nil {
		t.Fatal(err)
	}
	same(t, "stdout", logged(t, l.Path, "stdout"), []byte("last words\n"))
	same(t, "stderr", logged(t, l.Path, "stderr"), []byte("and these"))
}

func TestKeeperReplacedUnderLoad(t *testing.T) {
	dir := runDir(t)
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	cfg := config(dir, quiet())
	c := start(t, cfg)
	for _, id := range []string{"c0", "c1"} {
		if err := c.Follow(t.Context(), logOf(dir, id)); err != nil {
			t.Fatal(err)
		}
	}
	l := startLoad(t, dir, 2, 5000, nil)
	for i := range 3 {
		old, err := keeperPID(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Path = filepath.Join(dir, "version"+strconv.Itoa(i))
		if err := os.WriteFile(cfg.Path, b, 0o755); err != nil {
			t.Fatal(err)
		}
		if c, err = keeper.Start(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if now, err := keeperPID(dir); err != nil || now == old {
			t.Fatalf("keeper %d became %d, %v", old, now, err)
		}
	}
	l.check(t, c, dir)
}

func TestRotation(t *testing.T) {
	dir := runDir(t)
	c := start(t, config(dir, quiet()))
	l := logOf(dir, "c0")
	l.MaxSize, l.MaxFiles, l.TTY, l.Stderr = 100_000, 3, true, ""
	if err := c.Follow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	s := openShim(t, l.Stdout)
	line := strings.Repeat("z", 99) + "\n"
	for range 20_000 {
		if _, err := io.WriteString(s.w, line); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(s.w, "the end\r\n")
	s.close()
	if err := c.Forget(t.Context(), "c0"); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(l.Path + "*")
	if err != nil || len(files) != 3 {
		t.Fatalf("files %v, %v; want 3", files, err)
	}
	for _, f := range files[1:] {
		if st, err := os.Stat(f); err != nil || st.Size() < 10_000 || st.Size() > 100_000 {
			t.Errorf("%s has %d bytes, %v", f, st.Size(), err)
		}
		stamp := strings.TrimPrefix(f, l.Path+".")
		if _, err := time.Parse("20060102-150405", stamp[:15]); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
	got := logged(t, l.Path, "stdout")
	if !bytes.HasSuffix(got, []byte(line+"the end\n")) || bytes.Count(got, []byte(line)) < 1000 {
		t.Errorf("log ends with %q", got[max(0, len(got)-200):])
	}
}

func TestDiskFull(t *testing.T) {
	dir := runDir(t)
	logs := filepath.Join(dir, "logs")
	if err := os.Mkdir(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", logs, "tmpfs", 0, "size=128k"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(logs, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c := start(t, config(dir, quiet()))
	l := logOf(dir, "c0")
	if err := c.Follow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	out, errs := openShim(t, l.Stdout), openShim(t, l.Stderr)
	ballast := filepath.Join(logs, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(f, io.LimitReader(zeros{}, 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("wrote %d, %v", n, err)
	}
	f.Close()
	// The container goes on.
	if _, err := out.w.Write(bytes.Repeat([]byte("lost in a full disk\n"), 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	errs.close()
	fmt.Fprint(out.w, "after\n")
	out.close()
	if err := c.Forget(t.Context(), "c0"); err != nil {
		t.Fatal(err)
	}
	if got := logged(t, l.Path, "stdout"); !bytes.HasSuffix(got, []byte("after\n")) {
		t.Errorf("log ends with %q", got[max(0, len(got)-100):])
	}
	if got := logged(t, l.Path, "stderr"); !bytes.Contains(got, []byte("bytes of output lost: write")) {
		t.Errorf("the loss is not said: %q", got)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestRequests(t *testing.T) {
	dir := runDir(t)
	c := start(t, config(dir, quiet()))
	l := logOf(dir, "c0")
	for range 2 {
		if err := c.Follow(t.Context(), l); err != nil {
			t.Fatal(err)
		}
	}
	logs, err := c.List(t.Context())
	if err != nil || len(logs) != 1 || logs[0] != l {
		t.Errorf("List: %v, %v", logs, err)
	}
	other := l
	other.Path = filepath.Join(dir, "elsewhere")
	if err := c.Follow(t.Context(), other); err == nil || !strings.Contains(err.Error(), "followed already") {
		t.Errorf("following it to another file: %v", err)
	}
	for _, bad := range []keeper.Log{
		{ContainerID: "../x", Stdout: "/a", Path: "/b"},
		{ContainerID: "x", Stdout: "a", Path: "/b"},
		{ContainerID: "x", Stdout: "/a", Path: "b"},
		{ContainerID: "x", Stdout: "/a", Stderr: "c", Path: "/b"},
		{ContainerID: "x", Stdout: "/a", Path: "/b", MaxSize: -1},
	} {
		if err := c.Follow(t.Context(), bad); !errors.Is(err, keeper.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Follow(t.Context(), keeper.Log{ContainerID: "x", Stdout: file, Path: "/tmp/x"}); err == nil || !strings.Contains(err.Error(), "is not a FIFO") {
		t.Errorf("following a file: %v", err)
	}
	// Never started: nothing to wait for.
	if err := c.Forget(t.Context(), "c0"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(c.Forget(t.Context(), "c0"), c.Drain(t.Context(), "unknown")); err != nil {
		t.Error(err)
	}
	conn, err := net.Dial("unix", keeper.Socket(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	for ask, want := range map[string]string{
		`{"op":"attach","containerID":"c0"}`: `{"version":2,"error":"container c0 is not followed"}`,
		`{"op":"dance"}`:                     `{"version":2,"error":"operation \"dance\" is not known to this keeper"}`,
		`{"op":"ping"}`:                      `{"version":2}`,
		`{`:                                  `{"version":2,"error":"unexpected end of JSON input"}`,
		`{"op":"follow"}`:                    `{"version":2,"error":"follow: no log given"}`,
		`{"op":"guard"}`:                     `{"version":2,"error":"guard: no agent given"}`,
	} {
		fmt.Fprintln(conn, ask)
		if got, err := r.ReadString('\n'); strings.TrimSpace(got) != want {
			t.Errorf("%s: %s %v, want %s", ask, got, err, want)
		}
	}
}

func TestAttached(t *testing.T) {
	dir := runDir(t)
	c := start(t, config(dir, quiet()))
	l := logOf(dir, "c1")
	l.Stderr, l.TTY = "", true
	if err := c.Follow(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(l.Stdout, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	says := func(text string) {
		t.Helper()
		if _, err := out.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	// logged is the text of the log's entries, a | between them.
	logged := func() string {
		b, err := os.ReadFile(l.Path)
		if err != nil {
			t.Fatal(err)
		}
		var entries []string
		for line := range strings.Lines(string(b)) {
			entries = append(entries, strings.TrimSuffix(strings.SplitN(line, " ", 3)[2], "\n"))
		}
		return strings.Join(entries, "|")
	}
	shows := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); logged() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("logged %q, want %q", logged(), want)
			}
		}
	}
	says("one\r\n$ ")
	shows("F one")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Attach(ctx, "c1") }()
	shows("F one|P $ ")
	says("l")
	shows("F one|P $ |P l")
	says("s\r\n")
	shows("F one|P $ |P l|F s\r")

	// The next keeper is told too.
	pid, err := keeperPID(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	says("a")
	shows("F one|P $ |P l|F s\r|P a")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := c.Attach(t.Context(), "nobody"); err == nil || !strings.Contains(err.Error(), "container nobody is not followed") {
		t.Errorf("attach to nobody: %v", err)
	}
}

func TestStartSaysWhy(t *testing.T) {
	dir := runDir(t)
	cfg := config(dir, quiet())
	cfg.RunDir = filepath.Join(dir, strings.Repeat("long", 30))
	if _, err := keeper.Start(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "choose a shorter run directory") {
		t.Errorf("too long a path: %v", err)
	}
	cfg = config(dir, quiet())
	cfg.Path = filepath.Join(dir, "nothing")
	if _, err := keeper.Start(t.Context(), cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such program: %v", err)
	}
}

func TestInitReaps(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "init")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test makes a process namespace and needs root: %v", err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	pid := strconv.Itoa(cmd.Process.Pid)
	// An orphan of that namespace: nsenter's shell leaves it behind.
	if b, err := exec.Command("nsenter", "--target", pid, "--pid", "sh", "-c", "sleep 0.2 &").CombinedOutput(); err != nil {
		t.Fatalf("nsenter: %v: %s", err, b)
	}
	children := func() string {
		var all string
		tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
		for _, p := range tasks {
			b, _ := os.ReadFile(p)
			all += string(b)
		}
		return strings.TrimSpace(all)
	}
	for deadline := time.Now().Add(10 * time.Second); children() != ""; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not reaped: %s", children())
		}
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("init ended with %v", err)
	}
}
