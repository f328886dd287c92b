package place_test

import (
	"os"
	"path/filepath"
	"strconv"
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
	if err := d.WritePID(); err != nil {
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
	if err := os.WriteFile(d.PIDFile(), []byte("garbage"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := d.PID(); err == nil {
		t.Fatal("PID of a broken file: no error")
	}
}
