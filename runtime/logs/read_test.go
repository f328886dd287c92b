package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func put(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

const day = "2026-07-26T10:00:0"

func TestWhatIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path+".20260726-100000", day+"0.000000000Z stdout F one\n"+day+"1.000000000Z stderr F two\n")
	put(t, path+".20260726-100000.0001", day+"2.5Z stdout P thr\n"+day+"2.600000000Z stdout F ee\n")
	put(t, path, "no entry\n"+day+"3.000000000Z stdout F four\n"+day+"4.000000000Z stdout P five")
	// What is not ended by a newline is being written just now.
	old := time.Date(2026, 7, 26, 10, 0, 1, 0, time.UTC)
	if err := os.Chtimes(path+".20260726-100000", old, old); err != nil {
		t.Fatal(err)
	}
	all := Options{Tail: -1}
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"everything":            {func(*Options) {}, "one\ntwo\nthree\nfour\n"},
		"standard output":       {func(o *Options) { o.Stream = "stdout" }, "one\nthree\nfour\n"},
		"standard error":        {func(o *Options) { o.Stream = "stderr" }, "two\n"},
		"since":                 {func(o *Options) { o.Since = old.Add(1500 * time.Millisecond) }, "three\nfour\n"},
		"since exactly":         {func(o *Options) { o.Since = old }, "two\nthree\nfour\n"},
		"since now":             {func(o *Options) { o.Since = time.Now().Add(time.Hour) }, ""},
		"a limit":               {func(o *Options) { o.Limit = 6 }, "one\ntw"},
		"no line":               {func(o *Options) { o.Tail = 0 }, ""},
		"the last entry or two": {func(o *Options) { o.Tail = 2 }, "four\n"},
		"tail over two files":   {func(o *Options) { o.Tail = 5 }, "three\nfour\n"},
		"tail over three files": {func(o *Options) { o.Tail = 6 }, "two\nthree\nfour\n"},
		"tail of more":          {func(o *Options) { o.Tail = 100 }, "one\ntwo\nthree\nfour\n"},
		"tail since":            {func(o *Options) { o.Tail, o.Since = 6, old.Add(1500*time.Millisecond) }, "three\nfour\n"},
		"timestamps": {
			func(o *Options) { o.Timestamps = true },
			day + "0.000000000Z one\n" + day + "1.000000000Z two\n" + day + "2.500000000Z three\n" + day + "3.000000000Z four\n",
		},
	} {
		o := all
		c.change(&o)
		var out bytes.Buffer
		if err := Read(t.Context(), path, o, &out); err != nil || out.String() != c.want {
			t.Errorf("%s: %q, %v, want %q", name, out.String(), err, c.want)
		}
	}
	if err := Read(t.Context(), filepath.Join(t.TempDir(), "0.log"), all, &bytes.Buffer{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no log: %v", err)
	}
}

// growing is a writer that can be waited for.
type growing struct {
	mu   sync.Mutex
	more *sync.Cond
	b    bytes.Buffer
}

func newGrowing() *growing {
	g := &growing{}
	g.more = sync.NewCond(&g.mu)
	return g
}

func (g *growing) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.more.Broadcast()
	return g.b.Write(b)
}

func (g *growing) await(t *testing.T, suffix string) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	late := false
	timer := time.AfterFunc(20*time.Second, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		late = true
		g.more.Broadcast()
	})
	defer timer.Stop()
	for !strings.HasSuffix(g.b.String(), suffix) {
		if late {
			t.Fatalf("got ...%q, waited for %q", g.b.String()[max(0, g.b.Len()-200):], suffix)
		}
		g.more.Wait()
	}
}

func TestFollowThroughRotations(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	put(t, path, day+"0Z stdout F before\n")
	out, ended, done := newGrowing(), make(chan struct{}), make(chan error)
	go func() {
		done <- Read(context.Background(), path, Options{Tail: -1, Follow: true, Ended: ended}, out)
	}()
	out.await(t, "before\n")
	want := "before\n"
	for i := range 200 {
		line := fmt.Sprintf("line %d\n", i)
		put(t, path, day+"1Z stdout F "+line)
		want += line
		switch {
		case i%7 == 0: // an entry in two pieces
			put(t, path, day+"1Z std")
			put(t, path, "out P half ")
			put(t, path, "\n"+day+"1Z stdout F and half\n")
			want += "half and half\n"
		case i%5 == 0:
			if err := os.Rename(path, fmt.Sprintf("%s.20260726-1000%02d", path, i/5)); err != nil {
				t.Fatal(err)
			}
			put(t, path, "")
		case i%50 == 49:
			out.await(t, want)
		}
	}
	put(t, path, day+"1Z stdout F last\n")
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := out.b.String(); got != want+"last\n" {
		t.Errorf("got %d bytes, want %d", len(got), len(want)+5)
	}
}

func TestFollowWhenTheFileBeingReadIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path, day+"0Z stdout F one\n")
	out, ended, done := newGrowing(), make(chan struct{}), make(chan error)
	go func() {
		done <- Read(context.Background(), path, Options{Tail: -1, Follow: true, Ended: ended}, out)
	}()
	out.await(t, "one\n")
	put(t, path+".20260726-100002", day+"0Z stdout F two\n")
	put(t, path+".new", day+"0Z stdout F three\n")
	// The file being read goes, and there are two later ones.
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	out.await(t, "two\nthree\n")
	close(ended)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFollowEndsWithItsReader(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	put(t, path, day+"0Z stdout F one\n")
	ctx, cancel := context.WithCancel(t.Context())
	out, done := newGrowing(), make(chan error)
	go func() { done <- Read(ctx, path, Options{Tail: 1, Follow: true}, out) }()
	out.await(t, "one\n")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOptionsOf(t *testing.T) {
	now := time.Date(2026, 7, 26, 10, 0, 0, 0, time.UTC)
	tail, limit, since, stream := int64(3), int64(10), int64(60), corev1.LogStreamStderr
	got := OptionsOf(&corev1.PodLogOptions{TailLines: &tail, LimitBytes: &limit, SinceSeconds: &since, Stream: &stream, Timestamps: true}, now)
	if want := (Options{Tail: 3, Limit: 10, Since: now.Add(-time.Minute), Stream: "stderr", Timestamps: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	at := metav1.NewTime(now.Add(-time.Hour))
	got = OptionsOf(&corev1.PodLogOptions{SinceTime: &at, Follow: true}, now)
	if want := (Options{Tail: -1, Since: at.Time, Follow: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"ns_a_u1/c/0.log", "ns_a_u1/c/1.log", "ns_a_u1/c/1.log.20260726-100000", "ns_b_u2/c/0.log", "other"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, p), "x")
	}
	for range 2 {
		if err := Remove(filepath.Join(dir, "ns_a_u1/c/1.log")); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(filepath.Join(dir, "ns_a_u1/c")); err != nil || len(files) != 1 || files[0].Name() != "0.log" {
		t.Errorf("left: %v, %v", files, err)
	}
	if uids, err := Pods(dir); err != nil || fmt.Sprint(uids) != "[u1 u2]" {
		t.Errorf("Pods: %v, %v", uids, err)
	}
	for range 2 {
		if err := errors.Join(RemovePod(dir, "u1"), RemovePod(dir, ""), RemovePod(dir+"/nothing", "u1")); err != nil {
			t.Fatal(err)
		}
	}
	if uids, err := Pods(dir); err != nil || fmt.Sprint(uids) != "[u2]" {
		t.Errorf("Pods: %v, %v", uids, err)
	}
}
