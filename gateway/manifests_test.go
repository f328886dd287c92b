package gateway_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/troupe-sh/troupe/gateway/gatewaytest"
)

const manifestsPage = "../docs/manifests.md"

// Every published example is accepted, or refused with a reason; the page says
// which. Those accepted without a warning run in test/e2e.
func TestPublishedManifestsAreAcceptedOrRefusedForAReason(t *testing.T) {
	s := start(t)
	for _, name := range []string{"cpu-example", "mem-example"} { // that manifests want to be there
		s.Must(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	files, err := filepath.Glob("../test/manifests/*.[yj]*")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# What becomes of published manifests

Written by ` + "`make docs`" + ` (` + "`gateway/manifests_test.go`" + `; a test compares): each manifest of test/manifests goes through
` + "`apply`" + `. A manifest is *accepted*, accepted with fields that the client is *warned* of, or *refused*, at least one
object of it. Those that are accepted without a warning run in test/e2e.

| manifest | | why |
|---|---|---|
`)
	for _, file := range files {
		out, failed := kubectl(t, s, "", "apply", "-f", file)
		verdict, reasons := "accepted", reasonsOf(out)
		switch {
		case failed && len(reasons) == 0:
			t.Errorf("%s is refused without a reason:\n%s", file, out)
		case failed:
			verdict = "refused"
		case len(reasons) > 0:
			verdict = "warned"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", filepath.Base(file), verdict, strings.Join(reasons, "<br>"))
		remove(t, s) // names come again
	}
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(manifestsPage, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(manifestsPage)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.String(), string(got)); d != "" {
		t.Errorf("docs/manifests.md does not say what happens; write it anew with: make docs\n%s", d)
	}
}

// remove deletes what manifests made, but for namespaces.
func remove(t *testing.T, s *gatewaytest.Server) {
	t.Helper()
	c := s.Client("").CoreV1()
	for _, namespace := range []string{"default", "cpu-example", "mem-example"} {
		for _, all := range []interface {
			DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
		}{c.Pods(namespace), c.ReplicationControllers(namespace), c.ConfigMaps(namespace), c.Secrets(namespace)} {
			if err := all.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

var (
	noKind   = regexp.MustCompile(`no matches for kind "(\w+)" in version "([^"]+)"`)
	refused  = regexp.MustCompile(`(?m)^(?:Error from server.*|The \w+ ".*" is invalid): (.*)$`)
	listed   = regexp.MustCompile(`(?m)^\* (.*)$`)
	warnedOf = regexp.MustCompile(`(?m)^Warning: (.*)$`)
)

// reasonsOf is what the client was told, but for what was done.
func reasonsOf(out string) (reasons []string) {
	seen := map[string]bool{}
	add := func(r string) {
		if r = strings.TrimSpace(r); r != "" && !seen[r] {
			seen[r] = true
			reasons = append(reasons, r)
		}
	}
	for _, m := range noKind.FindAllStringSubmatch(out, -1) {
		add(fmt.Sprintf("no kind %s in %s", m[1], m[2]))
	}
	for _, expression := range []*regexp.Regexp{refused, listed, warnedOf} {
		for _, m := range expression.FindAllStringSubmatch(out, -1) {
			add(m[1])
		}
	}
	return reasons
}
