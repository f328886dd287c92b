// Package gateway speaks Kubernetes' REST API to clients: discovery, every verb
// on the kinds that Troupe has, tables, patches, watches, and the streams of a
// pod. The REST handlers are Kubernetes' own, over package door.
package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/emicklei/go-restful/v3"
	apidiscovery "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericfilters "k8s.io/apiserver/pkg/server/filters"

	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/cluster/door"
	"github.com/troupe-sh/troupe/runtime/pod"
)

// Streams is a pod's live side: what its machine answers itself.
type Streams interface {
	ServeLog(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, o *corev1.PodLogOptions)
	ServeExec(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, o *corev1.PodExecOptions)
	ServeAttach(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, o *corev1.PodAttachOptions)
	ServePortForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod, o *corev1.PodPortForwardOptions)
}

// Config is what a Gateway stands on.
type Config struct {
	Door    *door.Door
	Streams Streams
	Node    string                                    // the machine that this agent runs on
	Usage   func(context.Context) (*pod.Usage, error) // what it and its pods use
	Ready   func() error                              // why the agent does not serve yet, for /readyz; nil: it does
	Version version.Info                              // for /version
	Log     *slog.Logger
}

// The limits on what clients may ask.
const (
	maxReads       = 400              // requests at once, watches and streams not counted; see Limit
	maxWrites      = 200              // the same, of those that write
	maxBody        = 3 << 20          // bytes of a request's body
	requestTimeout = 60 * time.Second // of anything but watches and streams
	takeTimeout    = 60 * time.Second // how long a client may leave an answer, or a part of a stream, untaken
	watchAtLeast   = 30 * time.Minute // how long a watch without a timeout lasts, up to twice that
	headerTimeout  = 10 * time.Second
	idleTimeout    = 2 * time.Minute
)

// Gateway answers the REST API.
type Gateway struct {
	config    Config
	handler   http.Handler
	codecs    serializer.CodecFactory
	container *restful.Container
	limited   func(reads, writes int) http.Handler // what stands behind the limit on requests at once
	limit     atomic.Pointer[http.Handler]
}

// New builds the handlers. Nothing runs until a request comes.
func New(c Config) (*Gateway, error) {
	g := &Gateway{
		config: c,
		codecs: serializer.NewCodecFactory(api.Scheme,
			serializer.WithStreamingCollectionEncodingToJSON(), serializer.WithStreamingCollectionEncodingToProtobuf()),
		container: restful.NewContainer(),
	}
	g.container.Router(restful.CurlyRouter{})
	g.container.DoNotRecover(true) // our own filter does
	g.container.ServiceErrorHandler(func(e restful.ServiceError, req *restful.Request, resp *restful.Response) {
		g.unknown(resp.ResponseWriter, req.Request, e.Code)
	})
	if err := g.install(); err != nil {
		return nil, fmt.Errorf("install the API: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/api", g.container)
	mux.Handle("/api/", g.container)
	mux.Handle("/apis", g.container)
	mux.Handle("/apis/", g.container)
	mux.HandleFunc("GET /version", g.version)
	mux.HandleFunc("GET /livez", ok)
	mux.HandleFunc("GET /healthz", g.ready)
	mux.HandleFunc("GET /readyz", g.ready)
	mux.HandleFunc("GET /apis/apiextensions.k8s.io/v1/customresourcedefinitions", noCustomResources)
	installOpenAPI(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { g.unknown(w, r, http.StatusNotFound) })
	g.handler = g.filtered(mux)
	return g, nil
}

// install puts the groups and their discovery into the container.
func (g *Gateway) install() error {
	storages, err := g.config.Door.Storages()
	if err != nil {
		return err
	}
	for path, s := range streams(g.config.Door, g.config.Streams) {
		storages[path] = s
	}
	gv := corev1.SchemeGroupVersion
	served := map[string][]string{}
	for path := range storages {
		served[path] = []string{gv.Version}
	}
	group := &endpoints.APIGroupVersion{
		Storage:                     storages,
		Root:                        "/api",
		GroupVersion:                gv,
		AllServedVersionsByResource: served,
		Serializer:                  g.codecs,
		ParameterCodec:              runtime.NewParameterCodec(api.Scheme),
		Typer:                       api.Scheme,
		Creater:                     api.Scheme,
		Convertor:                   api.Scheme,
		ConvertabilityChecker:       api.Scheme,
		UnsafeConvertor:             runtime.UnsafeObjectConvertor(api.Scheme),
		Defaulter:                   api.Scheme,
		Namer:                       runtime.Namer(meta.NewAccessor()),
		TypeConverter:               &lazyConverter{},
		EquivalentResourceRegistry:  runtime.NewEquivalentResourceRegistry(),
		Authorizer:                  authorizerfactory.NewAlwaysAllowAuthorizer(),
		Admit:                       admission{g.config.Door},
		MinRequestTimeout:           watchAtLeast,
		MaxRequestBodyBytes:         maxBody,
	}
	resources, _, err := group.InstallREST(g.container)
	if err != nil {
		return err
	}
	measured, measuredResources, err := g.installMetrics(storages)
	if err != nil {
		return err
	}
	virtual, err := g.installReviews()
	if err != nil {
		return err
	}
	virtual = append(virtual, installed{measured, measuredResources})
	// Both forms of discovery: group by group, and all at once.
	addresses := discovery.DefaultAddresses{DefaultAddress: "localhost"}
	legacy := aggregated.NewResourceManager("api")
	legacy.AddGroupVersion(gv.Group, apidiscovery.APIVersionDiscovery{
		Freshness: apidiscovery.DiscoveryFreshnessCurrent, Version: gv.Version, Resources: resources,
	})
	named := aggregated.NewResourceManager("apis")
	groups := discovery.NewRootAPIsHandler(addresses, g.codecs)
	for _, v := range virtual {
		named.AddGroupVersion(v.group.Name, apidiscovery.APIVersionDiscovery{
			Freshness: apidiscovery.DiscoveryFreshnessCurrent, Version: v.group.PreferredVersion.Version, Resources: v.resources,
		})
		groups.AddGroup(v.group)
	}
	g.container.Add(aggregated.WrapAggregatedDiscoveryToHandler(
		discovery.NewLegacyRootAPIHandler(addresses, g.codecs, "/api"), legacy, nil).GenerateWebService("/api", metav1.APIVersions{}))
	g.container.Add(aggregated.WrapAggregatedDiscoveryToHandler(
		groups, named, nil).GenerateWebService("/apis", metav1.APIGroupList{}))
	return nil
}

var requestInfos = &request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

// longRunning tells the requests that have no time-out and count for no limit.
var longRunning = genericfilters.BasicLongRunningRequestCheck(
	sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "log", "portforward"))

// filtered puts around h what every request passes, the outermost last.
func (g *Gateway) filtered(h http.Handler) http.Handler {
	h = withIdempotencyKey(h)
	h = withUser(h)
	h = filters.WithWarningRecorder(h)
	h = withTimeout(h)
	h = withPatience(h)
	h = g.withLimit(h)
	h = filters.WithCacheControl(h)
	h = filters.WithRequestInfo(h, requestInfos)
	h = filters.WithRequestReceivedTimestamp(h)
	h = filters.WithAuditInit(h) // the handlers of patches rely on it
	return g.withRecovery(h)
}

// withLimit answers 429 to the requests past the limit.
func (g *Gateway) withLimit(h http.Handler) http.Handler {
	g.limited = func(reads, writes int) http.Handler {
		return genericfilters.WithMaxInFlightLimit(h, reads, writes, longRunning)
	}
	g.Limit(maxReads, maxWrites)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*g.limit.Load()).ServeHTTP(w, r) })
}

// Limit sets how many requests that read, and that write, are served at once.
// Those under way go on, and do not count any more.
func (g *Gateway) Limit(reads, writes int) {
	h := g.limited(reads, writes)
	g.limit.Store(&h)
}

// Handler answers REST requests itself and leaves gRPC calls to grpc; nil: there are none.
func (g *Gateway) Handler(grpc http.Handler) http.Handler {
	if grpc == nil {
		return g.handler
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			grpc.ServeHTTP(w, r)
			return
		}
		g.handler.ServeHTTP(w, r)
	})
}

// Server serves the unix socket: HTTP/1.1 and HTTP/2 without TLS, REST and gRPC.
func (g *Gateway) Server(grpc http.Handler) *http.Server {
	s := &http.Server{
		Handler:           g.Handler(grpc),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(g.config.Log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s
}
