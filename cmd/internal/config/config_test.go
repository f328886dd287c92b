package config

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write docs/config.schema.json anew")

const everything = `# every key
name: n1
dataDir: /var/lib/other
runDir: /run/other
socket: /run/other/s
containerd: /run/c.sock
containerdNamespace: other
cgroupParent: other
podCIDR: 10.1.0.0/16
logLevel: debug
restartBackoff: 1s
certsDir: /etc/certs
imageGC: {highPercent: 70, lowPercent: 60, minAge: 5m}
limits: {reads: 4, writes: 2}
`

func TestEveryKeyIsRead(t *testing.T) {
	c := Default()
	if err := Parse(c, "f", []byte(everything)); err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Name: "n1", DataDir: "/var/lib/other", RunDir: "/run/other", Socket: "/run/other/s", Containerd: "/run/c.sock",
		ContainerdNamespace: "other", CgroupParent: "other", PodCIDR: "10.1.0.0/16", LogLevel: "debug",
		RestartBackoff: Duration{time.Second}, CertsDir: "/etc/certs",
		ImageGC: ImageGC{HighPercent: 70, LowPercent: 60, MinAge: Duration{5 * time.Minute}}, Limits: Limits{Reads: 4, Writes: 2},
	}
	if d := cmp.Diff(want, c); d != "" {
		t.Error(d)
	}
	before := keys(Default())
	for i, k := range keys(c) {
		if k.value.Equal(before[i].value) {
			t.Errorf("%s is not in the test's file", k.path)
		}
	}
}

func TestWhatIsNotSaidHasItsDefault(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "{}", "name:\nlimits:\n", "limits: {}\n"} {
		c := Default()
		if err := Parse(c, "f", []byte(text)); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if d := cmp.Diff(Default(), c); d != "" {
			t.Errorf("%q: %s", text, d)
		}
	}
	c := Default()
	if err := Parse(c, "f", []byte("limits: {reads: 7}")); err != nil || c.Limits != (Limits{Reads: 7, Writes: 200}) {
		t.Errorf("%+v, %v", c.Limits, err)
	}
	if err := Parse(c, "f", []byte("x: &a {reads: 7}\nlimits: *a")); err == nil {
		t.Error("an unknown key with an anchor: no error")
	}
}

func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		"nam: n1":                                `f:1: unknown key "nam": did you mean name?`,
		"\nDataDir: /x":                          `f:2: unknown key "DataDir": did you mean dataDir?`,
		"restart-backoff: 1s":                    `f:1: unknown key "restart-backoff": did you mean restartBackoff?`,
		"limits:\n  read: 1":                     `f:2: unknown key "limits.read": did you mean limits.reads?`,
		"limits:\n  bananas: 1":                  `f:2: unknown key "limits.bananas": there are limits.reads, limits.writes`,
		"name: a\nname: b":                       `f:2: name: given twice, first in line 1`,
		"name: [a]":                              `f:1: name: must be a text, and is a list`,
		"name: 12":                               `f:1: name: must be a text: write "12", in quotes`,
		"name: A":                                `f:1: name: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')`,
		"logLevel: loud":                         `f:1: logLevel: "loud" is none of debug, info, warn, error`,
		"restartBackoff: 10":                     `f:1: restartBackoff: must be a duration, such as 10s, and is "10"`,
		"restartBackoff: soon":                   `f:1: restartBackoff: "soon" is no duration: write 500ms, 10s or 5m`,
		"restartBackoff: 1h":                     `f:1: restartBackoff: 1h0m0s is not between 1ms and 5m`,
		"restartBackoff: {a: b}":                 `f:1: restartBackoff: must be a duration, such as 10s, and is keys and values`,
		"limits: 5":                              `f:1: limits: must hold keys and values, and is "5"`,
		"limits: {reads: many}":                  `f:1: limits.reads: must be a whole number, and is "many"`,
		"limits: {reads: 1.5}":                   `f:1: limits.reads: must be a whole number, and is "1.5"`,
		"limits: {reads: 0}":                     `f:1: limits.reads: 0 is not between 1 and 100000`,
		"limits: {writes: 99999999999999999999}": `f:1: limits.writes: must be a whole number, and is "99999999999999999999"`,
		"podCIDR: here":                          `f:1: podCIDR: "here" is no range of addresses: write 10.244.0.0/16`,
		"podCIDR: 'fd00::/48'":                   `f:1: podCIDR: fd00::/48: only IPv4 is supported`,
		"podCIDR: 10.0.0.0/28":                   `f:1: podCIDR: 10.0.0.0/28: a machine gets a /24 of it, so it must be a /24 or larger`,
		"containerdNamespace: k8s.io":            `f:1: containerdNamespace: k8s.io is of other programs: the agent removes what it finds there, so give it one of its own`,
		"containerdNamespace: 'a b'":             `f:1: containerdNamespace: "a b": up to 76 letters and digits, with single dots, dashes and underscores between them`,
		"cgroupParent: system.slice":             `f:1: cgroupParent: system.slice is of other programs: the agent ends what it finds there, so give it one of its own`,
		"dataDir: ''":                            `f:1: dataDir: "" is no path`,
		"socket: /" + strings.Repeat("x", 107):   `f:1: socket: /` + strings.Repeat("x", 107) + `: longer than 107 characters, which the kernel does not take`,
		"- a":                                    `f:1: must hold keys and values, and is a list`,
		"just words":                             `f:1: must hold keys and values, and is "just words"`,
		"? [a]\n: b":                             `f:1: a key must be a text, and is a list`,
		"name: a\n---\nname: b":                  `f:2: a second document: a configuration is one`,
		"name: a\n  b: c":                        `f:2: no YAML: mapping values are not allowed in this context`,
		"name: \"a":                              `f:1: no YAML: found unexpected end of stream`,
		"<<: {name: a}":                          `f:1: unknown key "<<": there are name, dataDir, runDir, socket, containerd, containerdNamespace, cgroupParent, podCIDR, logLevel, restartBackoff, certsDir, imageGC, limits`,
		"limits: {writes: 0}\nname: _\nfoo: 1\n": "f:1: limits.writes: 0 is not between 1 and 100000\nf:2: name: \"_\": a lowercase",
	} {
		c := Default()
		err := Parse(c, "f", []byte(text))
		var problems Problems
		if !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
		if d := cmp.Diff(Default(), c); d != "" {
			t.Errorf("%q changed what was there: %s", text, d)
		}
	}
	// All at once, by line.
	err := Parse(Default(), "f", []byte("nmae: a\nlogLevel: x\nlimits:\n  writes: -1\n  reads: {}\n"))
	want := `f:1: unknown key "nmae": did you mean name?
f:2: logLevel: "x" is none of debug, info, warn, error
f:4: limits.writes: -1 is not between 1 and 100000
f:5: limits.reads: must be a whole number, and is keys and values`
	if err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := Parse(Default(), "f", make([]byte, largest+1)); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a file that is too long: %v", err)
	}
}

func TestCheckSeesWhatDoesNotGoTogether(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	for text, want := range map[string]string{
		"name: n1\ndataDir: /run\n":                file + ":2: dataDir /run is a directory of the system",
		"runDir: /srv/a\n\ndataDir: /srv/a/b\n":    file + ":3: dataDir /srv/a/b stands in runDir /srv/a,",
		"runDir: /srv/" + strings.Repeat("x", 100): file + ":1: runDir: its socket /srv/x",
		"name: [a]": file + ":1: name: must be a text",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := Check(file)
		var problems Problems
		if !errors.As(err, &problems) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
	}
	if err := os.WriteFile(file, []byte(everything), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Check(file); err != nil {
		t.Error(err)
	}
	if err := Check(file + ".none"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestFlags(t *testing.T) {
	c := Default()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	AddFlags(flags, c, "socket")
	if flags.Lookup("socket") != nil {
		t.Error("a flag that was left out is there")
	}
	if f := flags.Lookup("restart-backoff"); f == nil || f.DefValue != "10s" || f.Value.Type() != "duration" {
		t.Errorf("%+v", f)
	}
	if err := flags.Parse([]string{"--name=n2", "--restart-backoff", "2s", "--log-level=warn"}); err != nil {
		t.Fatal(err)
	}
	if c.Name != "n2" || c.RestartBackoff.Duration != 2*time.Second || c.LogLevel != "warn" {
		t.Errorf("%+v", c)
	}
	for _, wrong := range []string{"--name=N", "--restart-backoff=9h", "--pod-cidr=x", "--log-level=loud"} {
		if err := flags.Parse([]string{wrong}); err == nil || !strings.Contains(err.Error(), strings.Split(wrong, "=")[0]) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
	for _, k := range keys(c) {
		if k.flag() == "" && !strings.Contains(k.path, ".") {
			t.Errorf("%s has no flag", k.path)
		}
	}
}

func TestChanged(t *testing.T) {
	a, b := Default(), Default()
	if reload, restart := Changed(a, b); len(reload)+len(restart) > 0 {
		t.Errorf("%v, %v", reload, restart)
	}
	b.LogLevel, b.Limits.Writes, b.PodCIDR, b.RestartBackoff = "debug", 1, "10.9.0.0/16", Duration{time.Second}
	reload, restart := Changed(a, b)
	if !slices.Equal(reload, []string{"logLevel", "limits.writes"}) || !slices.Equal(restart, []string{"podCIDR", "restartBackoff"}) {
		t.Errorf("%v, %v", reload, restart)
	}
}

const schemaFile = "../../../docs/config.schema.json"

// TestTheSchemaIsWhatIsChecked compares docs/config.schema.json with the type,
// and its defaults and examples with the parser.
func TestTheSchemaIsWhatIsChecked(t *testing.T) {
	if *update {
		if err := os.WriteFile(schemaFile, Schema(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(Schema()), string(have)); d != "" {
		t.Errorf("%s is out of date: go test ./cmd/internal/config -update\n%s", schemaFile, d)
	}
	var s struct {
		AdditionalProperties bool
		Properties           map[string]struct {
			Type, Description string
			Properties        map[string]struct{ Description string }
		}
	}
	if err := json.Unmarshal(have, &s); err != nil || s.AdditionalProperties {
		t.Fatalf("%v: %s", err, have)
	}
	for _, f := range fieldsOf(reflect.TypeFor[Config]()) {
		p, ok := s.Properties[name(f)]
		if !ok || p.Description == "" {
			t.Errorf("%s: %+v", name(f), p)
		}
	}
	if len(s.Properties["limits"].Properties) != 2 {
		t.Errorf("%+v", s.Properties["limits"])
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		everything, "", "---", "name: [", "a: &a [*a]", "limits: &l {reads: 1}\nx: *l", "limits: {reads: 0x10}", "? {a: b}\n: c",
		"restartBackoff: !!binary aGVsbG8=", "name: !!null x", "\xff\xfe", "name: |\n  a\n  b\n", "- - - -", "{{{{", "name: \"\\0\"", "<<: *x",
		"limits: &a {reads: *a}", "%YAML 1.1\n---\nname: on\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := Default()
		err := Parse(c, "f", text)
		var problems Problems
		if err != nil {
			if !errors.As(err, &problems) || len(problems) == 0 {
				t.Fatalf("%v", err)
			}
			for _, p := range problems {
				if strings.TrimSpace(p.Text) == "" || p.Line < 0 || p.Line > 1+strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+strings.Count(string(text), "\u2028")+strings.Count(string(text), "\u2029")+strings.Count(string(text), "\u0085") {
					t.Errorf("%+v", p)
				}
			}
			if d := cmp.Diff(Default(), c); d != "" {
				t.Errorf("a wrong file was taken over: %s", d)
			}
			return
		}
		// What was accepted is in its ranges.
		for _, k := range keys(c) {
			if !k.value.IsZero() {
				if err := k.check(); err != nil {
					t.Errorf("%s: %v", k.path, err)
				}
			}
		}
	})
}
