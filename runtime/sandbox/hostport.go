package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/troupe-sh/troupe/runtime/container"
)

// tableName is a table of our own, there while a pod has host ports:
//
//	chain prerouting, output   what goes to the machine itself → ports
//	chain ports                a rule for each host port: dnat to the pod
//	chain postrouting          masquerade what came from 127.0.0.0/8 → hairpin
//	chain hairpin              a rule for each such pod: masquerade what it sends to itself
//
// Each rule of a pod carries the pod's ID, so it is found again.
const tableName = "troupe-hostports"

type tableChains struct {
	table                                               *nftables.Table
	prerouting, output, postrouting, portRules, hairpin *nftables.Chain
}

func chains() tableChains {
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	base := func(name string, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
		return &nftables.Chain{Name: name, Table: t, Type: nftables.ChainTypeNAT, Hooknum: hook, Priority: priority}
	}
	return tableChains{
		table:       t,
		prerouting:  base("prerouting", nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		output:      base("output", nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
		postrouting: base("postrouting", nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource),
		portRules:   &nftables.Chain{Name: "ports", Table: t},
		hairpin:     &nftables.Chain{Name: "hairpin", Table: t},
	}
}

// hostPorts makes the rules of a sandbox as its record asks, in one transaction.
func (s *Store) hostPorts(r record) error {
	s.mu.Lock() // what is read must still be so when it is changed
	defer s.mu.Unlock()
	if err := s.setHostPorts(r); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

func (s *Store) setHostPorts(r record) error {
	ports := r.Spec.HostPorts
	if r.Spec.HostNetwork {
		ports = nil // its ports are the machine's already
	}
	conn, err := nftables.New(nftables.WithNetNSFd(s.hostNS))
	if err != nil {
		return err
	}
	c := chains()
	there, err := tableExists(conn)
	if err != nil {
		return err
	}
	if !there && len(ports) == 0 {
		return nil
	}
	var old, others []*nftables.Rule
	tag := portTag(r.Spec.ID, r.Addr, ports)
	if there {
		for _, chain := range []*nftables.Chain{c.portRules, c.hairpin} {
			rules, err := conn.GetRules(c.table, chain)
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return err
			}
			for _, rule := range rules {
				if id, _, _ := strings.Cut(string(rule.UserData), " "); id == r.Spec.ID {
					old = append(old, rule)
				} else {
					others = append(others, rule)
				}
			}
		}
		if len(ports) == 0 && len(others) == 0 {
			conn.DelTable(c.table)
			return conn.Flush()
		}
		if s.portsStand(conn, c, old, tag, len(ports)) {
			return nil
		}
	}
	s.addBase(conn, c, there)
	for _, rule := range old {
		if err := conn.DelRule(rule); err != nil {
			return err
		}
	}
	for _, p := range ports {
		rule, err := portRule(c, r.Addr, p)
		if err != nil {
			return err
		}
		rule.UserData = []byte(tag)
		conn.AddRule(rule)
	}
	if len(ports) > 0 {
		conn.AddRule(&nftables.Rule{Table: c.table, Chain: c.hairpin, UserData: []byte(tag), Exprs: slices.Concat(
			matchAddr(12, r.Addr), matchAddr(16, r.Addr), []expr.Any{&expr.Masq{}})})
	}
	if err := conn.Flush(); err != nil {
		return err
	}
	for _, p := range ports {
		if !p.HostIP.IsValid() || p.HostIP.IsUnspecified() || p.HostIP.IsLoopback() {
			// What comes from 127.0.0.1 may leave through the pod's link.
			return setSysctl("net/ipv4/conf/"+hostLink(r.Spec.ID)+"/route_localnet", "1")
		}
	}
	return nil
}

// portsStand tells whether the rules of a sandbox are there, and what leads to them.
func (s *Store) portsStand(conn *nftables.Conn, c tableChains, old []*nftables.Rule, tag string, ports int) bool {
	want := ports
	if ports > 0 {
		want++ // the hairpin
	}
	if len(old) != want {
		return false
	}
	for _, rule := range old {
		if string(rule.UserData) != tag {
			return false
		}
	}
	for chain, n := range map[*nftables.Chain]int{c.prerouting: 1, c.output: 1, c.postrouting: 2} {
		if rules, err := conn.GetRules(c.table, chain); err != nil || len(rules) != n {
			return false
		}
	}
	return true
}

func tableExists(conn *nftables.Conn) (bool, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return false, err
	}
	for _, t := range tables {
		if t.Name == tableName {
			return true, nil
		}
	}
	return false, nil
}

// portTag tells the rules of a sandbox: its ID, and a hash of what they do.
func portTag(id string, addr netip.Addr, ports []container.HostPort) string {
	h := fnv.New64a()
	fmt.Fprint(h, addr, ports)
	return fmt.Sprintf("%s %x", id, h.Sum64())
}

// addBase adds what leads to the rules of pods. Where it stood it is made anew.
func (s *Store) addBase(conn *nftables.Conn, c tableChains, there bool) {
	conn.AddTable(c.table)
	for _, chain := range []*nftables.Chain{c.portRules, c.hairpin, c.prerouting, c.output, c.postrouting} {
		conn.AddChain(chain)
	}
	if there {
		for _, chain := range []*nftables.Chain{c.prerouting, c.output, c.postrouting} {
			conn.FlushChain(chain)
		}
	}
	for _, chain := range []*nftables.Chain{c.prerouting, c.output} {
		conn.AddRule(&nftables.Rule{Table: c.table, Chain: chain, Exprs: []expr.Any{
			&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
			&expr.Verdict{Kind: expr.VerdictJump, Chain: c.portRules.Name},
		}})
	}
	conn.AddRule(&nftables.Rule{Table: c.table, Chain: c.postrouting, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{127}},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(linkPrefix)}, // a prefix: the name's end is not compared
		&expr.Masq{},
	}})
	conn.AddRule(&nftables.Rule{Table: c.table, Chain: c.postrouting, Exprs: []expr.Any{
		&expr.Verdict{Kind: expr.VerdictJump, Chain: c.hairpin.Name},
	}})
}

func portRule(c tableChains, pod netip.Addr, p container.HostPort) (*nftables.Rule, error) {
	var proto byte
	switch p.Protocol {
	case "TCP", "":
		proto = unix.IPPROTO_TCP
	case "UDP":
		proto = unix.IPPROTO_UDP
	case "SCTP":
		proto = unix.IPPROTO_SCTP
	default:
		return nil, fmt.Errorf("protocol %q of port %d: %w", p.Protocol, p.HostPort, container.ErrInvalid)
	}
	var to []expr.Any
	if p.HostIP.IsValid() && !p.HostIP.IsUnspecified() {
		if !p.HostIP.Is4() {
			return nil, fmt.Errorf("host IP %v of port %d: %w: an IPv4 address is needed", p.HostIP, p.HostPort, container.ErrInvalid)
		}
		to = matchAddr(16, p.HostIP)
	}
	return &nftables.Rule{Table: c.table, Chain: c.portRules, Exprs: slices.Concat(
		[]expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		},
		to,
		[]expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: port(p.HostPort)},
			&expr.Immediate{Register: 1, Data: pod.AsSlice()},
			&expr.Immediate{Register: 2, Data: port(p.ContainerPort)},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1, RegProtoMin: 2, Specified: true},
		},
	)}, nil
}

// matchAddr compares the address at an offset of the IPv4 header.
func matchAddr(offset uint32, a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: a.AsSlice()},
	}
}

func port(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
