// Package config is an agent's configuration: a file of YAML whose keys are the
// fields of one Go type, and the flags that go before it. What it can say, its
// limits and its JSON schema are all read from that type.
package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/troupe-sh/troupe/cmd/internal/place"
)

// Config is what a file may say. The tags of a field:
//
//	json     its key
//	flag     its flag of "troupe up"; none: it stands in files alone
//	doc      what it is for
//	default  its value if nothing is said
//	format   what else it has to be: see formats
//	enum     the values that there are
//	min max  its range
//	reload   a running agent takes it over on SIGHUP; the others need a restart
type Config struct {
	Name                string   `json:"name,omitempty" flag:"name" format:"name" doc:"This machine's name in the cluster (default its host name)"`
	DataDir             string   `json:"dataDir,omitempty" flag:"data-dir" format:"path" default:"/var/lib/troupe" doc:"Where the agent keeps what survives a reboot"`
	RunDir              string   `json:"runDir,omitempty" flag:"run-dir" format:"path" default:"/run/troupe" doc:"Where the agent keeps what does not"`
	Socket              string   `json:"socket,omitempty" flag:"socket" format:"socket" doc:"Where the agent listens (default RUN-DIR/troupe.sock)"`
	Containerd          string   `json:"containerd,omitempty" flag:"containerd" format:"path" doc:"The socket of the containerd to use (default the machine's own if it answers, else one that the agent runs itself)"`
	ContainerdNamespace string   `json:"containerdNamespace,omitempty" flag:"containerd-namespace" format:"containerd-namespace" doc:"The containerd namespace, for this agent alone (default troupe, with another data directory named after it)"`
	CgroupParent        string   `json:"cgroupParent,omitempty" flag:"cgroup-parent" format:"cgroup" doc:"The cgroup that the pods' cgroups stand in, for this agent alone (default like the containerd namespace)"`
	PodCIDR             string   `json:"podCIDR,omitempty" flag:"pod-cidr" format:"pod-cidr" default:"10.244.0.0/16" doc:"The addresses of all pods of the cluster; each machine gets a /24 of it"`
	LogLevel            string   `json:"logLevel,omitempty" flag:"log-level" enum:"debug info warn error" default:"info" reload:"true" doc:"debug, info, warn or error"`
	RestartBackoff      Duration `json:"restartBackoff,omitempty" flag:"restart-backoff" min:"1ms" max:"5m" default:"10s" doc:"How long a container that ended again waits before its second restart; doubles up to 5m"`
	CertsDir            string   `json:"certsDir,omitempty" flag:"certs-dir" format:"path" default:"/etc/troupe/certs.d" doc:"How to reach image registries: HOST/hosts.toml with certificates, mirrors and plain HTTP, as containerd reads it"`
	ImageGC             ImageGC  `json:"imageGC,omitempty" doc:"When images that no container uses are removed"`
	Limits              Limits   `json:"limits,omitempty" doc:"What clients may ask at once"`
}

// ImageGC are Kubernetes' thresholds.
type ImageGC struct {
	HighPercent int      `json:"highPercent,omitempty" min:"1" max:"100" default:"85" reload:"true" doc:"Images are removed when the disk that holds them is this full; 100: never"`
	LowPercent  int      `json:"lowPercent,omitempty" min:"0" max:"99" default:"80" reload:"true" doc:"How full it may be then"`
	MinAge      Duration `json:"minAge,omitempty" min:"0s" max:"24h" default:"2m" reload:"true" doc:"How long an image stays after it has come or was used last"`
}

// Limits are on what clients ask. Watches and streams do not count.
type Limits struct {
	Reads  int `json:"reads,omitempty" min:"1" max:"100000" default:"400" reload:"true" doc:"Requests that read, at once; to further ones the answer is 429"`
	Writes int `json:"writes,omitempty" min:"1" max:"100000" default:"200" reload:"true" doc:"Requests that write, at once; to further ones the answer is 429"`
}

// Duration is one as people write it: 10s.
type Duration struct{ time.Duration }

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Dirs are its directories.
func (c *Config) Dirs() place.Dirs { return place.Dirs{Data: c.DataDir, Run: c.RunDir} }

// key is one field that holds a value.
type key struct {
	path  string // as a file nests it: limits.reads
	field reflect.StructField
	value reflect.Value
}

func (k key) flag() string { return k.field.Tag.Get("flag") }

// keys are all of them, in order.
func keys(c *Config) (all []key) {
	var add func(path string, v reflect.Value)
	add = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			k := key{path: path + name(f), field: f, value: v.Field(i)}
			if isObject(f.Type) {
				add(k.path+".", k.value)
			} else {
				all = append(all, k)
			}
		}
	}
	add("", reflect.ValueOf(c).Elem())
	return all
}

// name is a field's key.
func name(f reflect.StructField) string {
	n, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return n
}

var durations = reflect.TypeFor[Duration]()

func isObject(t reflect.Type) bool { return t.Kind() == reflect.Struct && t != durations }

// Default is the configuration of an agent that is told nothing.
func Default() *Config {
	c := &Config{}
	for _, k := range keys(c) {
		if text := k.field.Tag.Get("default"); text != "" {
			if err := k.set(text); err != nil {
				panic(fmt.Errorf("default of %s: %w", k.path, err))
			}
		}
	}
	return c
}

// set gives the key a value from its text, if it is one that it may have.
func (k key) set(text string) error {
	switch {
	case k.field.Type == durations:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration: write 500ms, 10s or 5m", text)
		}
		k.value.Set(reflect.ValueOf(Duration{d}))
	case k.field.Type.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is no whole number", text)
		}
		k.value.SetInt(int64(n))
	default:
		k.value.SetString(text)
	}
	return k.check()
}

// check says what is wrong with the value of the key.
func (k key) check() error {
	tag := k.field.Tag
	switch v := k.value.Interface().(type) {
	case Duration:
		low, high := bounds(tag, time.ParseDuration)
		if v.Duration < low || v.Duration > high {
			return fmt.Errorf("%s is not between %s and %s", v, tag.Get("min"), tag.Get("max"))
		}
	case int:
		low, high := bounds(tag, strconv.Atoi)
		if v < low || v > high {
			return fmt.Errorf("%d is not between %d and %d", v, low, high)
		}
	case string:
		if values := strings.Fields(tag.Get("enum")); len(values) > 0 && !slices.Contains(values, v) {
			return fmt.Errorf("%q is none of %s", v, strings.Join(values, ", "))
		}
		if f, ok := formats[tag.Get("format")]; ok {
			return f(v)
		}
	}
	return nil
}

func bounds[T any](tag reflect.StructTag, parse func(string) (T, error)) (low, high T) {
	low, err := parse(tag.Get("min"))
	if err == nil {
		high, err = parse(tag.Get("max"))
	}
	if err != nil {
		panic(fmt.Errorf("range of a key: %w", err))
	}
	return low, high
}

// longestSocket is what the kernel takes as a unix socket's path.
const longestSocket = 107

var containerdNamespace = regexp.MustCompile(`^[A-Za-z0-9]+([._-][A-Za-z0-9]+)*$`)

// formats are what texts have to be, besides not empty.
var formats = map[string]func(string) error{
	"name": func(s string) error {
		if errs := validation.IsDNS1123Subdomain(s); len(errs) > 0 {
			return fmt.Errorf("%q: %s", s, strings.Join(errs, "; "))
		}
		return nil
	},
	"path": func(s string) error {
		if s == "" || strings.ContainsRune(s, 0) {
			return fmt.Errorf("%q is no path", s)
		}
		return nil
	},
	"socket": func(s string) error {
		switch {
		case s == "" || strings.ContainsRune(s, 0):
			return fmt.Errorf("%q is no path", s)
		case len(s) > longestSocket:
			return fmt.Errorf("%s: longer than %d characters, which the kernel does not take", s, longestSocket)
		}
		return nil
	},
	"containerd-namespace": func(s string) error {
		switch {
		case slices.Contains([]string{"default", "k8s.io", "moby"}, s):
			return fmt.Errorf("%s is of other programs: the agent removes what it finds there, so give it one of its own", s)
		case len(s) > 76 || !containerdNamespace.MatchString(s):
			return fmt.Errorf("%q: up to 76 letters and digits, with single dots, dashes and underscores between them", s)
		}
		return nil
	},
	"cgroup": func(s string) error {
		top, _, _ := strings.Cut(strings.Trim(filepath.Clean("/"+s), "/"), "/")
		if top == "" || slices.Contains([]string{"init.scope", "kubepods", "docker"}, top) || strings.HasSuffix(s, ".slice") {
			return fmt.Errorf("%s is of other programs: the agent ends what it finds there, so give it one of its own", s)
		}
		return nil
	},
	"pod-cidr": func(s string) error {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			return fmt.Errorf("%q is no range of addresses: write 10.244.0.0/16", s)
		case !p.Addr().Is4():
			return fmt.Errorf("%s: only IPv4 is supported", s)
		case p.Bits() > 24:
			return fmt.Errorf("%s: a machine gets a /24 of it, so it must be a /24 or larger", s)
		}
		return nil
	},
}

// AddFlags adds the flags that set c, with its values as their defaults, but
// those of some names.
func AddFlags(flags *pflag.FlagSet, c *Config, but ...string) {
	for _, k := range keys(c) {
		if k.flag() != "" && !slices.Contains(but, k.flag()) {
			flags.Var(flagValue{k}, k.flag(), k.field.Tag.Get("doc"))
		}
	}
}

// flagValue is a key as a flag: it refuses what a file would be refused for.
type flagValue struct{ key }

// String implements [pflag.Value].
func (f flagValue) String() string {
	if !f.value.IsValid() { // the zero one that pflag compares with
		return ""
	}
	return fmt.Sprint(f.value.Interface())
}

// Set implements [pflag.Value].
func (f flagValue) Set(text string) error { return f.set(text) }

// Type implements [pflag.Value].
func (f flagValue) Type() string {
	if f.field.Type == durations {
		return "duration"
	}
	return "string"
}

// Changed lists the keys that two configurations differ in, and whether a
// running agent takes them over.
func Changed(old, new *Config) (reload, restart []string) {
	before := keys(old)
	for i, k := range keys(new) {
		if k.value.Equal(before[i].value) {
			continue
		}
		if k.field.Tag.Get("reload") != "" {
			reload = append(reload, k.path)
		} else {
			restart = append(restart, k.path)
		}
	}
	return reload, restart
}

// Load reads a file over what c says. The error is Problems if it can be read.
func Load(c *Config, file string) error {
	b, err := read(file)
	if err != nil {
		return err
	}
	return Parse(c, file, b)
}

// Check says what is wrong with a file alone, without flags.
func Check(file string) error {
	b, err := read(file)
	if err != nil {
		return err
	}
	c, p := Default(), parse(file, b)
	if err := p.result(c); err != nil {
		return err
	}
	if err := c.Complete(); err != nil {
		return p.together(err)
	}
	return nil
}

func read(file string) ([]byte, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return b, nil
}

// Complete checks what is said together, and fills in what follows from it:
// directories without links, and the socket.
func (c *Config) Complete() error {
	for _, k := range keys(c) {
		if !k.value.IsZero() { // what is not said has a default of its own
			if err := k.check(); err != nil {
				return fmt.Errorf("--%s: %w", k.flag(), err)
			}
		}
	}
	if c.ImageGC.LowPercent >= c.ImageGC.HighPercent {
		return fmt.Errorf("imageGC: lowPercent %d is not below highPercent %d", c.ImageGC.LowPercent, c.ImageGC.HighPercent)
	}
	dirs, err := c.Dirs().Resolve()
	if err != nil {
		return err
	}
	c.DataDir, c.RunDir = dirs.Data, dirs.Run
	if c.Socket == "" {
		c.Socket = dirs.Socket()
		if err := formats["socket"](c.Socket); err != nil {
			return fmt.Errorf("--run-dir: its socket %w", err)
		}
	}
	return nil
}
