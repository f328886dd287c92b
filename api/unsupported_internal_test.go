package api

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEveryFieldOfEverySpecHasARule(t *testing.T) {
	for name, typ := range specs {
		planOf(typ, name, func(path string, r *rule) {
			if r == nil {
				t.Errorf("%s: no rule; say in rules whether Troupe acts on it", path)
			}
		})
	}
}

var update = flag.Bool("update", false, "write docs/podspec.md anew")

const page = "../docs/podspec.md"

// The page is the rules, so it is the rules that are changed and the page that follows.
func TestThePageOfThePodSpecIsTheRules(t *testing.T) {
	want := podspec()
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("docs/podspec.md is not what the rules say; write it anew with: make docs\n%s", d)
	}
}

func podspec() string {
	var b strings.Builder
	b.WriteString(`# What Troupe does with each field of a pod

Written by ` + "`make docs`" + ` from the rules in ` + "`api/unsupported.go`" + `; a test compares.

A verdict on a field holds for all below it. *Acted on*: it does what Kubernetes says, or can have no effect of its own.
*Warned*: the object is accepted, and the client hears that nothing comes of the field. *Refused*: the object would be
wrong without it, so it is not accepted. Values in brackets are as good as leaving the field out. What stands here of
` + "`containers`" + ` holds for ` + "`initContainers`" + `.
`)
	for _, name := range []string{"Pod", "ReplicationController", "Node", "Namespace"} {
		rows := map[string]string{}
		count := map[verdict]int{}
		planOf(specs[name], name, func(path string, r *rule) {
			if !strings.HasPrefix(path, name+".") || r == nil {
				return // of a template: that table is the pod's
			}
			field := strings.TrimPrefix(path, name+".")
			if rows[field] == "" { // init containers have the rules of containers
				count[r.verdict]++
			}
			rows[field] = row(field, r)
		})
		fmt.Fprintf(&b, "\n## %s\n\n%d acted on, %d warned, %d refused.\n\n", name, count[acts], count[ignores], count[refuses])
		b.WriteString("| field of its spec | | what happens instead, or what to do |\n|---|---|---|\n")
		for _, field := range slices.Sorted(maps.Keys(rows)) {
			b.WriteString(rows[field])
		}
	}
	return b.String()
}

func row(path string, r *rule) string {
	advice := r.advice
	if len(r.unless) > 0 {
		advice += " [" + strings.Join(r.unless, ", ") + "]"
	}
	return strings.ReplaceAll(fmt.Sprintf("| `%s` | %s | %s |\n", path, map[verdict]string{acts: "acted on", ignores: "warned", refuses: "refused"}[r.verdict], advice), "|  |", "| |")
}

func TestEveryRuleIsAboutAField(t *testing.T) {
	for path, r := range rules {
		kind, rest, _ := strings.Cut(path, ".")
		if !leads(specs[kind], strings.Split(rest, ".")) {
			t.Errorf("%s: no such field", path)
		}
		if (r.verdict == acts) != (r.advice == "") {
			t.Errorf("%s: advice %q", path, r.advice)
		}
	}
}

func leads(t reflect.Type, path []string) bool {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if len(path) == 0 {
		return true
	}
	if t.Kind() != reflect.Struct {
		return false
	}
	want := strings.TrimSuffix(path[0], "[]")
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == want && leads(f.Type, path[1:]) || name == "" && leads(f.Type, path) {
			return true
		}
	}
	return false
}
