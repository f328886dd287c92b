package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/proxy"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/troupe-sh/troupe/cmd/internal/build"
	"github.com/troupe-sh/troupe/sdk"
)

// host stands in URLs for the agent behind the socket.
const host = "http://troupe"

// agent is the one that a command talks to. It gives kubectl's commands their
// connection, as a kubeconfig does elsewhere.
type agent struct {
	socket, namespace, timeout string
	warnings                   *printers.WarningPrinter

	once      sync.Once
	discovery discovery.CachedDiscoveryInterface
	err       error
}

var _ genericclioptions.RESTClientGetter = (*agent)(nil)

// errNoAgent says that nothing answers at the socket, and what to do.
type errNoAgent struct {
	socket string
	cause  error
}

func (e errNoAgent) Error() string {
	if errors.Is(e.cause, os.ErrPermission) {
		return fmt.Sprintf("the agent's socket %s is not open to this user: run the command as root", e.socket)
	}
	return fmt.Sprintf("no agent answers at %s: start one with \"troupe up\", or name another socket with --socket or TROUPE_SOCKET", e.socket)
}

func (e errNoAgent) Unwrap() error { return e.cause }

func (a *agent) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", a.socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrPermission) {
		return nil, errNoAgent{a.socket, err}
	}
	return c, err
}

// answers says whether something listens at the socket.
func (a *agent) answers() error {
	c, err := a.dial(context.Background(), "", "")
	if err != nil {
		return err
	}
	return c.Close()
}

// ToRESTConfig implements [genericclioptions.RESTClientGetter].
func (a *agent) ToRESTConfig() (*rest.Config, error) {
	timeout, err := clientcmd.ParseTimeout(a.timeout)
	if err != nil {
		return nil, fmt.Errorf("--request-timeout %s: %w", a.timeout, err)
	}
	c := &rest.Config{
		Host:      host,
		Dial:      a.dial,
		Proxy:     a.proxy,
		Timeout:   timeout,
		UserAgent: "troupe/" + build.Version(),
		QPS:       -1, // the agent itself says when it is too much
	}
	c.Wrap(func(rt http.RoundTripper) http.RoundTripper { return webSocketOnly{rt} })
	return c, nil
}

// byProxy is the scheme of the proxy that WebSockets take to the socket.
const byProxy = "troupe"

// proxy leads WebSockets to the agent: what kubectl's commands open them with
// asks for a proxy, but not for a way to dial. All else has Dial, whatever
// HTTP_PROXY says.
func (a *agent) proxy(r *http.Request) (*url.URL, error) {
	if r.Header.Get("Upgrade") == "" {
		return nil, nil
	}
	return &url.URL{Scheme: byProxy, Path: a.socket}, nil
}

// registerProxy makes byProxy known to those who dial through proxies.
func (a *agent) registerProxy() {
	proxy.RegisterDialerType(byProxy, func(*url.URL, proxy.Dialer) (proxy.Dialer, error) { return dialer(a.dial), nil })
}

type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Dial implements [proxy.Dialer].
func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d(context.Background(), network, address)
}

// DialContext implements [proxy.ContextDialer].
func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

// webSocketOnly makes a refusal final: kubectl's commands would try SPDY next,
// which has no way to the socket, and tell of that.
type webSocketOnly struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (w webSocketOnly) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(r)
	var refused *httpstream.UpgradeFailureError
	if errors.As(err, &refused) {
		err = refused.Cause
	}
	return resp, err
}

// ToDiscoveryClient implements [genericclioptions.RESTClientGetter].
func (a *agent) ToDiscoveryClient() (discovery.CachedDiscoveryInterface, error) {
	a.once.Do(func() {
		if a.err = a.answers(); a.err != nil {
			return
		}
		var c *rest.Config
		if c, a.err = a.ToRESTConfig(); a.err != nil {
			return
		}
		var d *discovery.DiscoveryClient
		if d, a.err = discovery.NewDiscoveryClientForConfig(c); a.err == nil {
			a.discovery = memory.NewMemCacheClient(d)
		}
	})
	return a.discovery, a.err
}

// ToRESTMapper implements [genericclioptions.RESTClientGetter].
func (a *agent) ToRESTMapper() (meta.RESTMapper, error) {
	d, err := a.ToDiscoveryClient()
	if err != nil {
		return nil, err
	}
	return restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(d), d, a.warnings.Print), nil
}

// ToRawKubeConfigLoader implements [genericclioptions.RESTClientGetter].
// kubectl's commands ask it for the namespace.
func (a *agent) ToRawKubeConfigLoader() clientcmd.ClientConfig {
	c := clientcmdapi.NewConfig()
	c.Clusters["troupe"] = &clientcmdapi.Cluster{Server: host}
	c.Contexts["troupe"] = &clientcmdapi.Context{Cluster: "troupe"}
	c.CurrentContext = "troupe"
	o := &clientcmd.ConfigOverrides{}
	o.Context.Namespace = a.namespace
	return clientcmd.NewDefaultClientConfig(*c, o)
}

// client is for the verbs that kubectl has not.
func (a *agent) client() (*sdk.Client, error) {
	if err := a.answers(); err != nil {
		return nil, err
	}
	return sdk.Dial(a.socket)
}
