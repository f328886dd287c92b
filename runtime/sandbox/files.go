package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/troupe-sh/troupe/runtime/container"
)

// writeFiles writes /etc/hosts, /etc/resolv.conf and /etc/hostname. Containers
// mount the files themselves, so an existing one is changed, not replaced.
func (s *Store) writeFiles(r record) error {
	p := s.Paths(r.Spec)
	hosts, err := hostsFile(r)
	if err != nil {
		return err
	}
	resolv, err := resolvConf(r.Spec.DNS)
	if err != nil {
		return err
	}
	name := r.Spec.Hostname
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		path    string
		content []byte
	}{{p.Hosts, hosts}, {p.ResolvConf, resolv}, {p.Hostname, []byte(name + "\n")}} {
		old, err := os.ReadFile(f.path)
		if err == nil && bytes.Equal(old, f.content) {
			continue
		}
		if err := os.WriteFile(f.path, f.content, 0o644); err != nil {
			return err
		}
		if err := os.Chmod(f.path, 0o644); err != nil { // whatever the umask is
			return err
		}
	}
	return nil
}

// What kubelet writes at the top of /etc/hosts; tools look for it.
const (
	hostsHeader     = "# Kubernetes-managed hosts file.\n"
	hostsHostHeader = "# Kubernetes-managed hosts file (host network).\n"
)

// hostsFile is /etc/hosts in kubelet's form.
func hostsFile(r record) ([]byte, error) {
	var b bytes.Buffer
	if r.Spec.HostNetwork {
		own, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		b.WriteString(hostsHostHeader)
		b.Write(own)
	} else {
		b.WriteString(hostsHeader)
		b.WriteString("127.0.0.1\tlocalhost\n")
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\n")
		b.WriteString("fe00::0\tip6-mcastprefix\n")
		b.WriteString("fe00::1\tip6-allnodes\n")
		b.WriteString("fe00::2\tip6-allrouters\n")
		if r.Spec.Domain != "" {
			fmt.Fprintf(&b, "%s\t%s.%s\t%s\n", r.Addr, r.Spec.Hostname, r.Spec.Domain, r.Spec.Hostname)
		} else {
			fmt.Fprintf(&b, "%s\t%s\n", r.Addr, r.Spec.Hostname)
		}
	}
	if len(r.Spec.Hosts) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, h := range r.Spec.Hosts {
			fmt.Fprintf(&b, "%s\t%s\n", h.Addr, strings.Join(h.Names, "\t"))
		}
	}
	return b.Bytes(), nil
}

// resolvConf is /etc/resolv.conf; of nothing, the machine's own.
func resolvConf(d container.DNS) ([]byte, error) {
	if len(d.Servers)+len(d.Searches)+len(d.Options) == 0 {
		own, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return own, nil
	}
	var b bytes.Buffer
	if len(d.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(d.Searches, " "))
	}
	for _, server := range d.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(d.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(d.Options, " "))
	}
	return b.Bytes(), nil
}
