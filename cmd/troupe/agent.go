package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/remotecommand"
	upgrade "k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream/spdy"

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
	return &rest.Config{
		Host:      host,
		Dial:      a.dial,
		Proxy:     func(*http.Request) (*url.URL, error) { return nil, nil }, // whatever HTTP_PROXY says
		Timeout:   timeout,
		UserAgent: "troupe/" + build.Version(),
		QPS:       -1, // the agent itself says when it is too much
	}, nil
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

// Execute runs exec and attach: kubectl's own executors cannot dial a socket.
func (a *agent) Execute(u *url.URL, c *rest.Config, stdin io.Reader, stdout, stderr io.Writer, tty bool, size remotecommand.TerminalSizeQueue) error {
	return a.ExecuteWithContext(context.Background(), u, c, stdin, stdout, stderr, tty, size)
}

// ExecuteWithContext is Execute until ctx ends.
func (a *agent) ExecuteWithContext(ctx context.Context, u *url.URL, _ *rest.Config, stdin io.Reader, stdout, stderr io.Writer, tty bool, size remotecommand.TerminalSizeQueue) error {
	transport, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{
		PingPeriod:       5 * time.Second,
		UpgradeTransport: &http.Transport{DialContext: a.dial},
	})
	if err != nil {
		return err
	}
	e, err := remotecommand.NewSPDYExecutorForTransports(transport, upgrade.NewUpgraderForStreaming(transport), http.MethodPost, u)
	if err != nil {
		return err
	}
	return e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: stdout, Stderr: stderr, Tty: tty, TerminalSizeQueue: size})
}
