package sandbox

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Teardown removes what Configure and RunSandbox made in the network of the
// machine itself: the links to pods, routes, the address on lo and the table of
// host ports. It needs no Store: whoever removes an agent that is dead calls it.
func Teardown() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() == "veth" && strings.HasPrefix(name, linkPrefix) {
			if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("remove link %s: %w", name, err)
			}
		}
		if name != "lo" {
			continue
		}
		addrs, err := netlink.AddrList(l, netlink.FAMILY_V4)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if a.Label == label {
				if err := netlink.AddrDel(l, &a); err != nil {
					return fmt.Errorf("remove address %v from lo: %w", a.IPNet, err)
				}
			}
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %v: %w", r.Dst, err)
		}
	}
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	there, err := tableExists(conn)
	if err != nil || !there {
		return err
	}
	conn.DelTable(chains().table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("remove table %s: %w", tableName, err)
	}
	return nil
}
