package pod

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/securitycontext"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/runtime/container"
)

// SandboxSpec is what a pod's containers will share on machine m.
func SandboxSpec(p *corev1.Pod, m Machine) (container.SandboxSpec, error) {
	s := container.SandboxSpec{
		ID:          string(p.UID),
		Pod:         Of(p),
		Hostname:    hostname(p),
		HostNetwork: p.Spec.HostNetwork,
		HostIPC:     p.Spec.HostIPC,
		HostPID:     p.Spec.HostPID,
		SharePID:    p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace,
		DNS:         dns(p, m),
		Resources:   podResources(p, m),
		QOS:         string(qosOf(p)),
	}
	if p.Spec.HostNetwork {
		s.Hostname = ""
	}
	for _, a := range p.Spec.HostAliases {
		addr, err := netip.ParseAddr(a.IP)
		if err != nil {
			return s, fmt.Errorf("host alias %q: %w", a.IP, err)
		}
		s.Hosts = append(s.Hosts, container.Host{Addr: addr, Names: a.Hostnames})
	}
	if c := p.Spec.SecurityContext; c != nil && len(c.Sysctls) > 0 {
		s.Sysctls = map[string]string{}
		for _, v := range c.Sysctls {
			s.Sysctls[v.Name] = v.Value
		}
	}
	if p.Spec.RuntimeClassName != nil {
		s.RuntimeClass = *p.Spec.RuntimeClassName
	}
	if !p.Spec.HostNetwork {
		var err error
		if s.HostPorts, err = hostPorts(p); err != nil {
			return s, err
		}
	}
	return s, nil
}

// Of is how the runtime remembers whose a container is.
func Of(p *corev1.Pod) container.Pod {
	return container.Pod{Namespace: p.Namespace, Name: p.Name, UID: string(p.UID)}
}

// longestHostname is what Linux takes.
const longestHostname = 63

func hostname(p *corev1.Pod) string {
	if p.Spec.Hostname != "" {
		return p.Spec.Hostname
	}
	if len(p.Name) <= longestHostname {
		return p.Name
	}
	return strings.TrimRight(p.Name[:longestHostname], "-.")
}

func hostPorts(p *corev1.Pod) ([]container.HostPort, error) {
	var ports []container.HostPort
	for _, c := range Parts(p) {
		for _, port := range c.Ports {
			if port.HostPort == 0 || c.Role == Init {
				continue
			}
			h := container.HostPort{
				Protocol:      string(port.Protocol),
				HostPort:      uint16(port.HostPort),
				ContainerPort: uint16(port.ContainerPort),
			}
			if h.Protocol == "" {
				h.Protocol = string(corev1.ProtocolTCP)
			}
			if port.HostIP != "" {
				addr, err := netip.ParseAddr(port.HostIP)
				if err != nil {
					return nil, fmt.Errorf("host IP of port %d: %w", port.HostPort, err)
				}
				h.HostIP = addr
			}
			ports = append(ports, h)
		}
	}
	return ports, nil
}

// dns is the resolver configuration by the pod's policy. As long as there is no
// cluster DNS, ClusterFirst is Default.
func dns(p *corev1.Pod, m Machine) container.DNS {
	var d container.DNS
	if p.Spec.DNSPolicy != corev1.DNSNone {
		own := m.dns()
		d = container.DNS{Servers: slices.Clone(own.Servers), Searches: slices.Clone(own.Searches), Options: slices.Clone(own.Options)}
	}
	c := p.Spec.DNSConfig
	if c == nil {
		return d
	}
	d.Servers = union(d.Servers, c.Nameservers)
	d.Searches = union(d.Searches, c.Searches)
	for _, o := range c.Options {
		d.Options = slices.DeleteFunc(d.Options, func(old string) bool {
			name, _, _ := strings.Cut(old, ":")
			return name == o.Name
		})
		if o.Value != nil {
			d.Options = append(d.Options, o.Name+":"+*o.Value)
		} else {
			d.Options = append(d.Options, o.Name)
		}
	}
	return d
}

func union(a, b []string) []string {
	for _, s := range b {
		if !slices.Contains(a, s) {
			a = append(a, s)
		}
	}
	return a
}

// Setting is what a container of a pod is made in.
type Setting struct {
	Machine Machine
	Addr    netip.Addr  // of the pod
	Sources api.Sources // what the pod refers to
	Image   container.Image
	Mounts  []container.Mount
}

// ContainerSpec is one container of a pod, made for the runtime. The error is
// what Kubernetes calls a CreateContainerConfigError.
func ContainerSpec(p *corev1.Pod, c *corev1.Container, in Setting, attempt uint32) (container.Spec, error) {
	security, err := confinement(p, c, in.Image)
	if err != nil {
		return container.Spec{}, err
	}
	env, values, err := Environment(p, c, in)
	if err != nil {
		return container.Spec{}, err
	}
	expand := func(all []string) []string {
		var out []string
		for _, s := range all {
			out = append(out, expansion.Expand(s, expansion.MappingFuncFor(values)))
		}
		return out
	}
	return container.Spec{
		ID:                     ContainerID(p.UID, c.Name, attempt),
		Sandbox:                string(p.UID),
		Pod:                    Of(p),
		Name:                   c.Name,
		Attempt:                attempt,
		Image:                  c.Image,
		Command:                expand(c.Command),
		Args:                   expand(c.Args),
		WorkingDir:             c.WorkingDir,
		Env:                    env,
		Mounts:                 in.Mounts,
		Resources:              containerResources(p, c, in.Machine),
		Stdin:                  c.Stdin,
		StdinOnce:              c.StdinOnce,
		TTY:                    c.TTY,
		LogPath:                LogPath(p, c.Name, in.Machine, attempt),
		Hash:                   Hash(c),
		Security:               security,
		TerminationMessagePath: c.TerminationMessagePath,
	}, nil
}

// LogPath is where a container's attempt logs to.
func LogPath(p *corev1.Pod, name string, m Machine, attempt uint32) string {
	return path.Join(m.LogDir, LogDirOf(p), name, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// Hash tells whether a container still is what the pod wishes: its name and
// image, which are all that can change of it.
func Hash(c *corev1.Container) string {
	b, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		panic(err) // strings always encode
	}
	h := fnv.New32a()
	h.Write(b)
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}

// confinement is a container's security context with its pod's.
func confinement(p *corev1.Pod, c *corev1.Container, image container.Image) (container.Security, error) {
	sc := securitycontext.DetermineEffectiveSecurityContext(p, c)
	if err := nonRoot(p, c, sc, image.User); err != nil {
		return container.Security{}, err
	}
	s := container.Security{
		RunAsGroup:   sc.RunAsGroup,
		Privileged:   sc.Privileged != nil && *sc.Privileged,
		ReadOnlyRoot: sc.ReadOnlyRootFilesystem != nil && *sc.ReadOnlyRootFilesystem,
		NoNewPrivs:   securitycontext.AddNoNewPrivileges(sc),
		RunAsNonRoot: sc.RunAsNonRoot != nil && *sc.RunAsNonRoot,
	}
	s.MaskedPaths = !s.Privileged && (sc.ProcMount == nil || *sc.ProcMount == corev1.DefaultProcMount)
	if sc.RunAsUser != nil {
		s.User = strconv.FormatInt(*sc.RunAsUser, 10)
	}
	if sc.Capabilities != nil {
		s.AddCaps, s.DropCaps = capabilities(sc.Capabilities.Add), capabilities(sc.Capabilities.Drop)
	}
	if psc := p.Spec.SecurityContext; psc != nil {
		if psc.FSGroup != nil {
			s.Groups = append(s.Groups, *psc.FSGroup)
		}
		s.Groups = append(s.Groups, psc.SupplementalGroups...)
	}
	s.Seccomp = seccomp(p, c, s.Privileged)
	return s, nil
}

func capabilities(in []corev1.Capability) []string {
	var out []string
	for _, c := range in {
		out = append(out, strings.TrimPrefix(strings.ToUpper(string(c)), "CAP_"))
	}
	return out
}

// seccomp is RuntimeDefault unless something else is asked for.
func seccomp(p *corev1.Pod, c *corev1.Container, privileged bool) string {
	var profile *corev1.SeccompProfile
	if p.Spec.SecurityContext != nil {
		profile = p.Spec.SecurityContext.SeccompProfile
	}
	if c.SecurityContext != nil && c.SecurityContext.SeccompProfile != nil {
		profile = c.SecurityContext.SeccompProfile
	}
	switch {
	case privileged:
		return string(corev1.SeccompProfileTypeUnconfined)
	case profile == nil:
		return string(corev1.SeccompProfileTypeRuntimeDefault)
	case profile.Type == corev1.SeccompProfileTypeLocalhost && profile.LocalhostProfile != nil:
		return "localhost/" + *profile.LocalhostProfile
	}
	return string(profile.Type)
}

// nonRoot refuses a container that would be root against its pod's will, in
// the words of Kubernetes.
func nonRoot(p *corev1.Pod, c *corev1.Container, sc *corev1.SecurityContext, user string) error {
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	if sc.RunAsUser != nil {
		if *sc.RunAsUser == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy (pod: %q, container: %s)", Format(p), c.Name)
		}
		return nil
	}
	user, _, _ = strings.Cut(user, ":")
	id, err := strconv.ParseInt(user, 10, 64)
	switch {
	case user == "" || err == nil && id == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", Format(p), c.Name)
	case err != nil:
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root (pod: %q, container: %s)",
			user, Format(p), c.Name)
	}
	return nil
}

// Format is a pod as Kubernetes writes it in messages.
func Format(p *corev1.Pod) string { return p.Name + "_" + p.Namespace + "(" + string(p.UID) + ")" }
