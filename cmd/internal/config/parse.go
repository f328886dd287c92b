package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File string
	Line int    // 0: of the file as a whole
	Key  string // "" likewise
	Text string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d", p.Line)
	}
	b.WriteString(": ")
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// Problems are all of them, by line.
type Problems []Problem

func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, one := range p {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Parse reads text over what c says. The error is Problems: all that is wrong,
// and c is as it was then.
func Parse(c *Config, file string, text []byte) error { return parse(file, text).result(c) }

// largest is how long a file may be.
const largest = 1 << 20

type parser struct {
	file     string
	said     map[string]string // by key
	lines    map[string]int
	problems Problems
}

func parse(file string, text []byte) *parser {
	p := &parser{file: file, said: map[string]string{}, lines: map[string]int{}}
	p.document(text)
	slices.SortStableFunc(p.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return p
}

func (p *parser) result(c *Config) error {
	if len(p.problems) > 0 {
		return p.problems
	}
	for _, k := range keys(c) {
		if text, ok := p.said[k.path]; ok {
			if err := k.set(text); err != nil {
				return err // it was tried before
			}
		}
	}
	return nil
}

// together is a problem of what each for itself is right; its text speaks of flags.
func (p *parser) together(err error) Problems {
	one := Problem{File: p.file, Text: err.Error()}
	for _, k := range keys(Default()) {
		if k.flag() == "" || !strings.Contains(one.Text, "--"+k.flag()) {
			continue
		}
		one.Text = strings.ReplaceAll(one.Text, "--"+k.flag(), k.path)
		one.Line = cmp.Or(one.Line, p.lines[k.path])
	}
	return Problems{one}
}

func (p *parser) wrong(line int, key, format string, args ...any) {
	p.problems = append(p.problems, Problem{p.file, line, key, fmt.Sprintf(format, args...)})
}

// syntax is how the library says where it cannot go on.
var syntax = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func (p *parser) document(text []byte) {
	if len(text) > largest {
		p.wrong(0, "", "longer than %d bytes: this is no configuration", largest)
		return
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var root, further yaml.Node
	err := d.Decode(&root)
	if err == nil {
		var tried Config
		p.value(root.Content[0], key{field: reflect.StructField{Type: reflect.TypeFor[Config]()}, value: reflect.ValueOf(&tried).Elem()})
		err = d.Decode(&further)
		if err == nil {
			p.wrong(further.Line, "", "a second document: a configuration is one")
			return
		}
	}
	if errors.Is(err, io.EOF) {
		return // an empty file says nothing
	}
	line, said := 0, err.Error()
	if m := syntax.FindStringSubmatch(said); m != nil {
		line, _ = strconv.Atoi(m[1]) // none: of the whole file
		said = m[2]
	}
	if line == 0 && strings.Contains(said, "end of stream") {
		line = 1 + bytes.Count(text, []byte("\n"))
	}
	p.wrong(line, "", "no YAML: %s", strings.Join(strings.Fields(said), " "))
}

func (p *parser) value(n *yaml.Node, k key) {
	line := n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a key without a value says nothing
	}
	if isObject(k.field.Type) {
		p.object(n, line, k)
		return
	}
	want, tags := "a text", []string{"!!str"}
	switch {
	case k.field.Type == durations:
		want = "a duration, such as 10s"
	case k.field.Type.Kind() == reflect.Int:
		want, tags = "a whole number", []string{"!!int"}
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		p.wrong(line, k.path, "must be %s, and is %s", want, kindOf(n))
	case !slices.Contains(tags, n.Tag) && want == "a text":
		p.wrong(line, k.path, "must be a text: write %q, in quotes", n.Value)
	case !slices.Contains(tags, n.Tag):
		p.wrong(line, k.path, "must be %s, and is %s", want, shown(n.Value))
	default:
		p.said[k.path], p.lines[k.path] = n.Value, line
		if err := k.set(n.Value); err != nil {
			p.wrong(line, k.path, "%v", err)
		}
	}
}

func (p *parser) object(n *yaml.Node, line int, k key) {
	if n.Kind != yaml.MappingNode {
		p.wrong(line, k.path, "must hold keys and values, and is %s", kindOf(n))
		return
	}
	prefix := ""
	if k.path != "" {
		prefix = k.path + "."
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		said := n.Content[i]
		path := prefix + said.Value
		if said.Kind != yaml.ScalarNode {
			p.wrong(said.Line, k.path, "a key must be a text, and is %s", kindOf(said))
			continue
		}
		if before, twice := first[said.Value]; twice {
			p.wrong(said.Line, path, "given twice, first in line %d", before)
			continue
		}
		first[said.Value] = said.Line
		j := slices.IndexFunc(fieldsOf(k.field.Type), func(f reflect.StructField) bool { return name(f) == said.Value })
		if j < 0 {
			p.wrong(said.Line, "", "unknown key %s: %s", shown(path), instead(said.Value, prefix, k.field.Type))
			continue
		}
		f := fieldsOf(k.field.Type)[j]
		p.value(n.Content[i+1], key{path: path, field: f, value: k.value.Field(j)})
	}
}

func fieldsOf(t reflect.Type) []reflect.StructField { return reflect.VisibleFields(t) }

// shown is a text as messages show it, cut where it gets long.
func shown(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:59]) + "…"
	}
	return strconv.Quote(s)
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys and values"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		return shown(n.Value)
	}
	return "something else"
}

// instead says which keys there are: the nearest, if one is near, or all.
func instead(said, prefix string, t reflect.Type) string {
	nearest, far := "", 1+len(said)/2
	var all []string
	for _, f := range fieldsOf(t) {
		all = append(all, prefix+name(f))
		if d := distance(strings.ToLower(said), strings.ToLower(name(f)), far); d < far {
			nearest, far = prefix+name(f), d
		}
	}
	if nearest != "" {
		return "did you mean " + nearest + "?"
	}
	return "there are " + strings.Join(all, ", ")
}

// distance is how many letters have to be put in, taken out or changed to make
// b of a; not looked at closely if that is far.
func distance(a, b string, far int) int {
	x, y := []rune(a), []rune(b)
	if max(len(x), len(y))-min(len(x), len(y)) >= far {
		return far
	}
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j := range y {
			change := diagonal
			if x[i] != y[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(y)]
}
