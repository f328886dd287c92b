package config

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Schema is the JSON schema of a file, for editors and whoever checks files
// without this program. It cannot say everything: "troupe config check" does.
func Schema() []byte {
	s := object(reflect.TypeFor[Config]())
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Configuration of a Troupe agent"
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(fmt.Errorf("schema of the configuration: %w", err))
	}
	return append(b, '\n')
}

func object(t reflect.Type) map[string]any {
	properties := map[string]any{}
	for _, f := range fieldsOf(t) {
		properties[name(f)] = property(f)
	}
	return map[string]any{"type": "object", "additionalProperties": false, "properties": properties}
}

// patterns are what formats look like, as far as a pattern can say.
var patterns = map[string]map[string]any{
	"name":                 {"pattern": `^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`, "maxLength": 253},
	"path":                 {"minLength": 1},
	"socket":               {"minLength": 1, "maxLength": longestSocket},
	"containerd-namespace": {"pattern": containerdNamespace.String(), "maxLength": 76, "not": map[string]any{"enum": []string{"default", "k8s.io", "moby"}}},
	"cgroup":               {"minLength": 1},
	"pod-cidr":             {"pattern": `^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+/([0-9]|1[0-9]|2[0-4])$`},
}

func property(f reflect.StructField) map[string]any {
	tag := f.Tag
	doc := tag.Get("doc") + ". "
	if tag.Get("reload") != "" {
		doc += "Taken over on SIGHUP."
	} else {
		doc += "Needs a restart."
	}
	p := map[string]any{"type": "string", "description": doc}
	switch {
	case isObject(f.Type):
		p = object(f.Type)
		p["description"] = tag.Get("doc") + "."
	case f.Type == durations:
		p["pattern"] = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
		p["description"] = fmt.Sprintf("%s From %s to %s.", doc, tag.Get("min"), tag.Get("max"))
	case f.Type.Kind() == reflect.Int:
		low, high := bounds(tag, strconv.Atoi)
		p["type"], p["minimum"], p["maximum"] = "integer", low, high
	default:
		for k, v := range patterns[tag.Get("format")] {
			p[k] = v
		}
	}
	if values := strings.Fields(tag.Get("enum")); len(values) > 0 {
		p["enum"] = values
	}
	if d := tag.Get("default"); d != "" {
		if n, err := strconv.Atoi(d); err == nil && p["type"] == "integer" {
			p["default"] = n
		} else {
			p["default"] = d
		}
	}
	return p
}
