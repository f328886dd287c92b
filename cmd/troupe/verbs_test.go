package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

var update = flag.Bool("update", false, "write the golden files")

// TestVerbs runs the transcripts in testdata/verbs. Each is a shell session
// against an API of its own: lines that begin with "$ " are typed, and what
// stands between them is what is printed (standard output, then with "! " what
// goes to standard error, then the exit code if it is not 0). The files that
// follow in the archive are there when it begins.
func TestVerbs(t *testing.T) {
	files, err := filepath.Glob("testdata/verbs/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			said := newSession(t, a.Files).replay(string(a.Comment))
			if said == string(a.Comment) {
				return
			}
			if *update {
				a.Comment = []byte(said)
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			t.Errorf("%s (go test ./cmd/troupe -run TestVerbs -update writes it):\n%s", file, differing(string(a.Comment), said))
		})
	}
}

// session is a shell in which troupe is this test's own binary.
type session struct {
	t   *testing.T
	dir string
	env []string
}

func newSession(t *testing.T, files []txtar.File) *session {
	t.Helper()
	s := gatewaytest.Start(t, containers(t))
	s.Must(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"kubernetes.io/hostname": "n1"}},
		Status: corev1.NodeStatus{
			Conditions:  []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Capacity:    corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourcePods: resource.MustParse("110")},
			Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourcePods: resource.MustParse("110")},
		},
	})
	dir, bin := t.TempDir(), t.TempDir()
	for _, f := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(f.Name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	self, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(bin, "troupe")); err != nil {
		t.Fatal(err)
	}
	return &session{t, dir, append(os.Environ(), asTroupe+"=1", "TROUPE_SOCKET="+s.Socket,
		"PATH="+bin+":"+os.Getenv("PATH"), "HOME="+dir, "KUBECONFIG=", "LC_ALL=C", "TZ=UTC", "HTTP_PROXY=http://127.0.0.1:1")}
}

// replay types the lines of a transcript and returns it with what is said now.
func (s *session) replay(transcript string) string {
	var b strings.Builder
	for line := range strings.Lines(transcript) {
		typed, ok := strings.CutPrefix(line, "$ ")
		switch {
		case ok:
			b.WriteString(line)
			b.WriteString(s.run(strings.TrimSuffix(typed, "\n")))
		case strings.HasPrefix(line, "# "):
			b.WriteString("\n" + line)
		}
	}
	return strings.TrimPrefix(b.String(), "\n")
}

func (s *session) run(line string) string {
	c := exec.CommandContext(s.t.Context(), "sh", "-c", line)
	c.Dir, c.Env = s.dir, s.env
	var out, errs strings.Builder
	c.Stdout, c.Stderr = &out, &errs
	_ = c.Run() // the exit code is part of what is said
	var b strings.Builder
	b.WriteString(s.mask(out.String()))
	for said := range strings.Lines(s.mask(errs.String())) {
		b.WriteString("! " + said)
	}
	text := b.String()
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	if code := c.ProcessState.ExitCode(); code != 0 {
		text += fmt.Sprintf("[exit code %d]\n", code)
	}
	return text
}

// masks replace what is another each time.
var masks = []struct {
	found *regexp.Regexp
	by    string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000( UTC)?`), "TIME"},
	{regexp.MustCompile(`[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \+0000`), "TIME"},
	{regexp.MustCompile(`(resourceVersion"?: )"\d+"`), `$1"N"`},
	{regexp.MustCompile(`(?m)(\s)\d{1,2}s( +|$)`), "${1}Ns "}, // an age, with what pads it
	{regexp.MustCompile(`/tmp/(LIVE|MERGED)-\d+`), "/tmp/$1"},
	{regexp.MustCompile(`(debugger|debugger-n1)-[a-z0-9]{5}`), "$1-RANDOM"},
	{regexp.MustCompile(`it has namespaces, nodes, [a-z, ]*`), "it has KINDS"},
	{regexp.MustCompile(`[ \t]+(?m:$)`), ""},
}

func (s *session) mask(text string) string {
	text = strings.ReplaceAll(text, s.dir, "DIR")
	for _, m := range masks {
		text = m.found.ReplaceAllString(text, m.by)
	}
	return text
}

// differing shows the first line in which two transcripts differ, with what
// was typed before it.
func differing(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	typed := ""
	for i := range max(len(w), len(g)) {
		at := func(lines []string) string {
			if i < len(lines) {
				return lines[i]
			}
			return "(end)"
		}
		if at(w) != at(g) {
			return fmt.Sprintf("%s\n\twant %s\n\tgot  %s", typed, at(w), at(g))
		}
		if strings.HasPrefix(w[i], "$ ") {
			typed = w[i]
		}
	}
	return ""
}
