package api

import (
	"reflect"
	"strings"
	"testing"
)

func TestEveryFieldOfEverySpecHasARule(t *testing.T) {
	for name, typ := range specs {
		planOf(typ, name, func(path string) { t.Errorf("%s: no rule; say in rules whether Troupe acts on it", path) })
	}
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
