package place_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

func TestSettingsAreReadAsWritten(t *testing.T) {
	d := place.Dirs{Data: t.TempDir(), Run: t.TempDir()}
	if _, found, err := d.Read(); found || err != nil {
		t.Fatalf("Read of an empty directory: found %v, error %v", found, err)
	}
	want := place.Settings{Node: "n1", RunDir: d.Run, Containerd: "/x/containerd.sock", ContainerdNamespace: "troupe", PrivateContainerd: true, CgroupParent: "troupe"}
	if err := d.Write(want); err != nil {
		t.Fatal(err)
	}
	got, found, err := d.Read()
	if err != nil || !found || got != want {
		t.Fatalf("Read: %+v, found %v, error %v; want %+v", got, found, err, want)
	}
}

func TestAProcessThatIsNoAgentIsNotTakenForOne(t *testing.T) {
	d := place.Dirs{Run: filepath.Join(t.TempDir(), "run")}
	if pid, err := d.PID(); pid != 0 || err != nil {
		t.Fatalf("PID without a file: %d, %v", pid, err)
	}
	forget, err := d.WritePID()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(d.PIDFile())
	if err != nil || string(b) != strconv.Itoa(os.Getpid())+"\n" {
		t.Fatalf("pid file: %q, %v", b, err)
	}
	// The file names this test, which lives but is no trouped.
	if pid, err := d.PID(); pid != 0 || err != nil {
		t.Fatalf("PID of another process: %d, %v", pid, err)
	}
	forget()
	if _, err := os.Stat(d.PIDFile()); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("pid file after the end: %v", err)
	}
}

// TestAProcessIDThatAnotherAgentHasByNow: the file of an agent that was killed
// may name the process of another one.
func TestAProcessIDThatAnotherAgentHasByNow(t *testing.T) {
	if err := os.WriteFile("/proc/self/comm", []byte("trouped"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !place.IsAgent(os.Getpid()) {
		t.Fatal("this process is not taken for an agent")
	}
	mine, others := place.Dirs{Run: t.TempDir()}, place.Dirs{Run: t.TempDir()}
	forget, err := mine.WritePID()
	if err != nil {
		t.Fatal(err)
	}
	defer forget()
	if err := os.WriteFile(others.PIDFile(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if pid, err := mine.PID(); pid != os.Getpid() || err != nil {
		t.Errorf("the file that is held: %d, %v", pid, err)
	}
	if pid, err := others.PID(); pid != 0 || err != nil {
		t.Errorf("the file that nobody holds: %d, %v", pid, err)
	}
}

func TestDirectoriesAreTheAgentsOwn(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	got, err := place.Dirs{Data: filepath.Join(link, "a", "..", "data", "x"), Run: filepath.Join(link, "run") + "/"}.Resolve()
	if want := (place.Dirs{Data: filepath.Join(dir, "data", "x"), Run: filepath.Join(dir, "run")}); err != nil || got != want {
		t.Errorf("Resolve: %+v, %v; want %+v", got, err, want)
	}
	root := filepath.Join(dir, "root")
	if err := os.Symlink("/", root); err != nil {
		t.Fatal(err)
	}
	for _, d := range []place.Dirs{
		{},
		{Data: dir},
		{Run: dir},
		{Data: "/", Run: dir},
		{Data: dir, Run: "/"},
		{Data: dir, Run: "/run"},
		{Data: dir, Run: "/run/x/.."},
		{Data: dir, Run: root},
		{Data: dir, Run: filepath.Join(root, "nothing")},
		{Data: dir, Run: dir},
		{Data: filepath.Join(dir, "d"), Run: dir},
	} {
		if got, err := d.Resolve(); err == nil {
			t.Errorf("Resolve of %+v: %+v, want an error", d, got)
		}
	}
}

func TestAgentsAreNamedByTheirData(t *testing.T) {
	a, b := place.Dirs{Data: "/var/lib/a"}, place.Dirs{Data: "/var/lib/b"}
	if own := (place.Dirs{Data: place.DataDir}); own.Name() != "troupe" || a.Name() == b.Name() || a.Name() == own.Name() {
		t.Errorf("names %s, %s, %s", own.Name(), a.Name(), b.Name())
	}
}

func TestADirectoryWithOthersThingsIsRefused(t *testing.T) {
	dir := t.TempDir()
	put := func(path string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("begun/trouped.log") // and nothing else: a start that failed
	put("begun/lock")
	put("begun/journal/raft.db")
	put("left/netns/u1/net")
	put("left/keeper/lock")
	put("home/thesis.txt")
	data := func(name string) string { return filepath.Join(dir, name) }
	for d, holds := range map[place.Dirs]string{
		{Data: data("new"), Run: data("run")}:    "",
		{Data: data("begun"), Run: data("left")}: "",
		{Data: data("home"), Run: data("run")}:   "--data-dir",
		{Data: data("new"), Run: data("home")}:   "--run-dir",
	} {
		err := d.Own()
		if holds == "" && err != nil || holds != "" && (err == nil || !strings.Contains(err.Error(), holds) || !strings.Contains(err.Error(), "thesis.txt")) {
			t.Errorf("%+v: %v", d, err)
		}
	}
	known := place.Dirs{Data: data("begun"), Run: data("left")}
	if err := known.Write(place.Settings{RunDir: known.Run}); err != nil {
		t.Fatal(err)
	}
	put("begun/note.txt") // later, beside the agent's
	put("left/note.txt")
	if err := known.Own(); err != nil {
		t.Errorf("an agent that was there before: %v", err)
	}
	known.Run = data("home")
	if err := known.Own(); err == nil {
		t.Error("another run directory, of somebody else: no error")
	}
}
