package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

const (
	podLink = "eth0"
	// linkPrefix begins the machine's end of every pod's veth pair.
	linkPrefix = "trp"
	// protocol marks the routes that are ours.
	protocol = 116
	// unreachableMetric lets every other route to the same prefix win.
	unreachableMetric = 1 << 16
	// label marks the machine's own address on lo.
	label = "lo:troupe"
)

var (
	// podGateway is every pod's: nobody answers for it, a permanent neighbour
	// entry sends what goes there to the machine's end of the pair.
	podGateway = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	// gatewayMAC is the machine's end of every pair; each pair is a link of its own.
	gatewayMAC = net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}
	defaultDst = &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
)

// network is the machine's part of the pod network, as configured.
type network struct {
	container.Network
	mtu int
}

func (s *Store) network() network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.net
}

// Configure sets up the machine itself: forwarding, its own pod address on lo,
// and that what goes to nobody in the cluster's ranges ends here.
func (s *Store) Configure(_ context.Context, n container.Network) error {
	if err := checkNetwork(n); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.configure(n); err != nil {
		return fmt.Errorf("configure pod network %v: %w", n.PodCIDR, err)
	}
	return nil
}

func checkNetwork(n container.Network) error {
	switch {
	case !n.PodCIDR.IsValid() || !n.PodCIDR.Addr().Is4() || n.PodCIDR.Bits() > 30:
		return fmt.Errorf("pod CIDR %v: %w: an IPv4 prefix of at most 30 bits is needed", n.PodCIDR, container.ErrInvalid)
	case n.ClusterCIDR.IsValid() && (!n.ClusterCIDR.Contains(n.PodCIDR.Addr()) || n.ClusterCIDR.Bits() > n.PodCIDR.Bits()):
		return fmt.Errorf("pod CIDR %v is not within the cluster's %v: %w", n.PodCIDR, n.ClusterCIDR, container.ErrInvalid)
	case n.ServiceCIDR.IsValid() && !n.ServiceCIDR.Addr().Is4():
		return fmt.Errorf("service CIDR %v: %w: an IPv4 prefix is needed", n.ServiceCIDR, container.ErrInvalid)
	}
	return nil
}

func (s *Store) configure(n container.Network) error {
	if err := setSysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	lo, err := s.host.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := s.host.LinkSetUp(lo); err != nil {
		return err
	}
	own := &netlink.Addr{IPNet: hostNet(gateway(n.PodCIDR)), Label: label}
	if err := s.host.AddrReplace(lo, own); err != nil {
		return fmt.Errorf("address %v on lo: %w", own.IPNet, err)
	}
	if err := s.dropAddresses(lo, own.IPNet.IP); err != nil {
		return err
	}
	wanted := []netip.Prefix{n.PodCIDR.Masked()}
	if n.ClusterCIDR.IsValid() {
		wanted[0] = n.ClusterCIDR.Masked()
	}
	if n.ServiceCIDR.IsValid() {
		wanted = append(wanted, n.ServiceCIDR.Masked())
	}
	for _, p := range wanted {
		if err := s.host.RouteReplace(unreachable(p)); err != nil {
			return fmt.Errorf("unreachable route to %v: %w", p, err)
		}
	}
	if err := s.dropUnreachable(wanted); err != nil {
		return err
	}
	s.net = network{Network: n, mtu: n.MTU}
	if n.MTU == 0 {
		s.net.mtu, err = s.defaultMTU()
	}
	return err
}

func unreachable(p netip.Prefix) *netlink.Route {
	return &netlink.Route{Dst: ipNet(p), Type: unix.RTN_UNREACHABLE, Protocol: protocol, Priority: unreachableMetric}
}

// dropAddresses removes our addresses on lo but keep.
func (s *Store) dropAddresses(lo netlink.Link, keep net.IP) error {
	addrs, err := s.host.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if a.Label == label && !a.IP.Equal(keep) {
			if err := s.host.AddrDel(lo, &a); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropUnreachable removes our unreachable routes but those to keep.
func (s *Store) dropUnreachable(keep []netip.Prefix) error {
	routes, err := s.host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: protocol, Type: unix.RTN_UNREACHABLE}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if r.Dst != nil && slices.ContainsFunc(keep, func(p netip.Prefix) bool { return p.String() == r.Dst.String() }) {
			continue
		}
		if err := s.host.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}

// defaultMTU is that of the link which the machine's default route uses.
func (s *Store) defaultMTU() (int, error) {
	routes, err := s.host.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: nil}, netlink.RT_FILTER_DST)
	if err != nil {
		return 0, err
	}
	for _, r := range routes {
		if link, err := s.host.LinkByIndex(r.LinkIndex); err == nil && r.LinkIndex > 0 {
			return link.Attrs().MTU, nil
		}
	}
	return 1500, nil
}

// hostLink is the name of the machine's end of a sandbox's pair.
func hostLink(id string) string {
	sum := sha256.Sum256([]byte(id))
	return linkPrefix + hex.EncodeToString(sum[:6]) // 15 characters are all that a link's name may have
}

// podMAC says the address in six bytes, as the usual plugins do.
func podMAC(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

// wirePod sets up the network namespace that the thread is in, and makes the
// pair that leads out of it. Every step may have been done before.
func (s *Store) wirePod(r record, n network) error {
	pod, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer pod.Close()
	lo, err := pod.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := pod.LinkSetUp(lo); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	eth, err := s.pair(pod, r, n.mtu)
	if err != nil {
		return fmt.Errorf("veth pair %s: %w", hostLink(r.Spec.ID), err)
	}
	if err := pod.AddrReplace(eth, &netlink.Addr{IPNet: hostNet(r.Addr)}); err != nil {
		return fmt.Errorf("address %v: %w", r.Addr, err)
	}
	if err := pod.LinkSetUp(eth); err != nil {
		return fmt.Errorf("link %s up: %w", podLink, err)
	}
	index := eth.Attrs().Index
	if err := pod.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: podGateway.AsSlice(), HardwareAddr: gatewayMAC}); err != nil {
		return fmt.Errorf("neighbour %v: %w", podGateway, err)
	}
	for _, route := range []*netlink.Route{
		{LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: hostNet(podGateway)},
		{LinkIndex: index, Dst: defaultDst, Gw: podGateway.AsSlice()},
	} {
		if err := pod.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %v of the pod: %w", route.Dst, err)
		}
	}
	return nil
}

// wireHost sets up the machine's end of the pair.
func (s *Store) wireHost(r record, n network) error {
	name := hostLink(r.Spec.ID)
	host, err := s.host.LinkByName(name)
	if err != nil {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := setSysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s: %w", name, err)
	}
	if err := s.host.LinkSetUp(host); err != nil {
		return fmt.Errorf("link %s up: %w", name, err)
	}
	index := host.Attrs().Index
	if err := s.host.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: r.Addr.AsSlice(), HardwareAddr: podMAC(r.Addr)}); err != nil {
		return fmt.Errorf("neighbour %v: %w", r.Addr, err)
	}
	if err := s.host.RouteReplace(&netlink.Route{
		LinkIndex: index, Scope: netlink.SCOPE_LINK, Dst: hostNet(r.Addr),
		Src: gateway(n.PodCIDR).AsSlice(), Protocol: protocol,
	}); err != nil {
		return fmt.Errorf("route to %v: %w", r.Addr, err)
	}
	return nil
}

// pair finds or makes the veth pair and returns the pod's end.
func (s *Store) pair(pod *netlink.Handle, r record, mtu int) (netlink.Link, error) {
	name := hostLink(r.Spec.ID)
	eth, err := pod.LinkByName(podLink)
	if err == nil {
		if _, err = s.host.LinkByName(name); err == nil {
			return eth, nil
		}
		if err := pod.LinkDel(eth); err != nil { // somebody renamed the other end
			return nil, err
		}
	}
	if !isLinkNotFound(err) {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = podLink, mtu, podMAC(r.Addr)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = name, uint32(mtu), gatewayMAC
	veth.PeerNamespace = netlink.NsFd(s.hostNS)
	err = pod.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		// The machine's end of a namespace that is lost.
		if err := s.unwire(r.Spec.ID); err != nil {
			return nil, err
		}
		err = pod.LinkAdd(veth)
	}
	return veth, err
}

func isLinkNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// wired tells whether the machine's end and its route stand.
func (s *Store) wired(r record) bool {
	link, err := s.host.LinkByName(hostLink(r.Spec.ID))
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 || link.Attrs().OperState == netlink.OperDown {
		return false
	}
	routes, err := s.host.RouteGet(r.Addr.AsSlice())
	return err == nil && len(routes) == 1 && routes[0].LinkIndex == link.Attrs().Index
}

// unwire removes a sandbox's pair; its routes go with it.
func (s *Store) unwire(id string) error {
	link, err := s.host.LinkByName(hostLink(id))
	if isLinkNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.host.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func hostNet(a netip.Addr) *net.IPNet { return ipNet(netip.PrefixFrom(a, a.BitLen())) }

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// setSysctl writes one of the machine's network namespace, if it is not so already.
func setSysctl(key, value string) error {
	path := "/proc/sys/" + key
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.TrimSpace(string(old)) == value {
		return nil
	}
	return os.WriteFile(path, []byte(value), 0o644)
}
