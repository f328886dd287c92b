package host

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/miekg/dns"

	"github.com/troupe-sh/troupe/runtime/container"
)

// resolvConf is how this machine resolves names (resolv.conf(5)).
const resolvConf = "/etc/resolv.conf"

// DNS is the machine's own resolver configuration, which pods with the DNS
// policy Default get.
func DNS() (container.DNS, error) { return dnsOf(resolvConf) }

func dnsOf(file string) (container.DNS, error) {
	c, err := dns.ClientConfigFromFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return container.DNS{}, nil // a machine that resolves no names
	}
	if err != nil {
		return container.DNS{}, fmt.Errorf("read how this machine resolves names: %w", err)
	}
	d := container.DNS{Servers: c.Servers, Searches: c.Search}
	if c.Ndots != 1 { // the default
		d.Options = append(d.Options, fmt.Sprintf("ndots:%d", c.Ndots))
	}
	return d, nil
}
