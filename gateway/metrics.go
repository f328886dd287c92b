package gateway

import (
	"context"
	"fmt"
	"time"

	apidiscovery "k8s.io/api/apidiscovery/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/metrics/pkg/apis/metrics"
	metricsinstall "k8s.io/metrics/pkg/apis/metrics/install"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/troupe-sh/troupe/runtime/pod"
)

// metricsScheme knows the kinds of metrics.k8s.io, which are not stored: the
// answer to a question is made for it.
var metricsScheme = func() *runtime.Scheme {
	s := runtime.NewScheme()
	metricsinstall.Install(s)
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	return s
}()

// installMetrics puts metrics.k8s.io/v1beta1 into the container, as
// Kubernetes' metrics-server has it, over the pods and nodes that core/v1 has.
func (g *Gateway) installMetrics(core map[string]rest.Storage) (metav1.APIGroup, []apidiscovery.APIResourceDiscovery, error) {
	gv := v1beta1.SchemeGroupVersion
	codecs := serializer.NewCodecFactory(metricsScheme)
	pods := &metricsOf[metrics.PodMetrics]{
		gateway: g, of: core["pods"].(reader), resource: gv.WithResource("pods").GroupResource(), kind: "PodMetrics", singular: "pod", namespaced: true,
		new: func() runtime.Object { return &metrics.PodMetrics{} }, list: func() runtime.Object { return &metrics.PodMetricsList{} },
		measured: podMetrics, row: podRow,
	}
	nodes := &metricsOf[metrics.NodeMetrics]{
		gateway: g, of: core["nodes"].(reader), resource: gv.WithResource("nodes").GroupResource(), kind: "NodeMetrics", singular: "node",
		new: func() runtime.Object { return &metrics.NodeMetrics{} }, list: func() runtime.Object { return &metrics.NodeMetricsList{} },
		measured: g.nodeMetrics, row: nodeRow,
	}
	return g.installVirtual(gv, map[string]rest.Storage{"pods": pods, "nodes": nodes}, metricsScheme, codecs)
}

// installVirtual puts a group of which nothing is stored into the container.
func (g *Gateway) installVirtual(gv schema.GroupVersion, storages map[string]rest.Storage, scheme *runtime.Scheme, codecs serializer.CodecFactory,
) (metav1.APIGroup, []apidiscovery.APIResourceDiscovery, error) {
	served := map[string][]string{}
	for path := range storages {
		served[path] = []string{gv.Version}
	}
	group := &endpoints.APIGroupVersion{
		Storage:                     storages,
		Root:                        "/apis",
		GroupVersion:                gv,
		AllServedVersionsByResource: served,
		Serializer:                  codecs,
		ParameterCodec:              runtime.NewParameterCodec(scheme),
		Typer:                       scheme,
		Creater:                     scheme,
		Convertor:                   scheme,
		ConvertabilityChecker:       scheme,
		UnsafeConvertor:             runtime.UnsafeObjectConvertor(scheme),
		Defaulter:                   scheme,
		Namer:                       runtime.Namer(meta.NewAccessor()),
		TypeConverter:               managedfields.NewDeducedTypeConverter(), // nothing is kept
		EquivalentResourceRegistry:  runtime.NewEquivalentResourceRegistry(),
		Authorizer:                  authorizerfactory.NewAlwaysAllowAuthorizer(),
		MinRequestTimeout:           watchAtLeast,
		MaxRequestBodyBytes:         maxBody,
	}
	resources, _, err := group.InstallREST(g.container)
	if err != nil {
		return metav1.APIGroup{}, nil, err
	}
	version := metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version}
	discovered := metav1.APIGroup{Name: gv.Group, Versions: []metav1.GroupVersionForDiscovery{version}, PreferredVersion: version}
	g.container.Add(discovery.NewAPIGroupHandler(codecs, discovered).WebService())
	return discovered, resources, nil
}

// reader is where the objects are that something was measured of.
type reader interface {
	rest.Getter
	rest.Lister
}

// metricsOf is one of the two resources: what was measured of each object that
// a request selects. One of which nothing is known yet is not there.
type metricsOf[M any] struct {
	gateway    *Gateway
	of         reader
	resource   schema.GroupResource
	kind       string
	singular   string
	namespaced bool
	new, list  func() runtime.Object
	measured   func(runtime.Object, *pod.Usage) (M, bool)
	row        func(*M) (usage corev1.ResourceList, window time.Duration)
}

// New implements [rest.Storage].
func (m *metricsOf[M]) New() runtime.Object { return m.new() }

// NewList implements [rest.Lister].
func (m *metricsOf[M]) NewList() runtime.Object { return m.list() }

// Destroy implements [rest.Storage].
func (m *metricsOf[M]) Destroy() {}

// Kind implements [rest.KindProvider].
func (m *metricsOf[M]) Kind() string { return m.kind }

// NamespaceScoped implements [rest.Scoper].
func (m *metricsOf[M]) NamespaceScoped() bool { return m.namespaced }

// GetSingularName implements [rest.SingularNameProvider].
func (m *metricsOf[M]) GetSingularName() string { return m.singular }

// Get implements [rest.Getter].
func (m *metricsOf[M]) Get(ctx context.Context, name string, o *metav1.GetOptions) (runtime.Object, error) {
	object, err := m.of.Get(ctx, name, o)
	if apierrors.IsNotFound(err) {
		return nil, apierrors.NewNotFound(m.resource, name)
	}
	if err != nil {
		return nil, err
	}
	usage, err := m.usage(ctx)
	if err != nil {
		return nil, err
	}
	one, ok := m.measured(object, usage)
	if !ok {
		return nil, apierrors.NewNotFound(m.resource, name)
	}
	return any(&one).(runtime.Object), nil
}

// List implements [rest.Lister].
func (m *metricsOf[M]) List(ctx context.Context, o *internalversion.ListOptions) (runtime.Object, error) {
	objects, err := m.of.List(ctx, o)
	if err != nil {
		return nil, err
	}
	usage, err := m.usage(ctx)
	if err != nil {
		return nil, err
	}
	var items []M
	err = meta.EachListItem(objects, func(object runtime.Object) error {
		if one, ok := m.measured(object, usage); ok {
			items = append(items, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	from, err := meta.ListAccessor(objects)
	if err != nil {
		return nil, err
	}
	page := metav1.ListMeta{ResourceVersion: from.GetResourceVersion(), Continue: from.GetContinue(), RemainingItemCount: from.GetRemainingItemCount()}
	switch items := any(items).(type) {
	case []metrics.PodMetrics:
		return &metrics.PodMetricsList{ListMeta: page, Items: items}, nil
	case []metrics.NodeMetrics:
		return &metrics.NodeMetricsList{ListMeta: page, Items: items}, nil
	}
	return nil, apierrors.NewInternalError(fmt.Errorf("list of %T", items))
}

func (m *metricsOf[M]) usage(ctx context.Context) (*pod.Usage, error) {
	usage, err := m.gateway.config.Usage(ctx)
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("what the %s use is not known: %v; try again", m.resource.Resource, err))
	}
	return usage, nil
}

// ConvertToTable implements [rest.TableConvertor], with metrics-server's columns.
func (m *metricsOf[M]) ConvertToTable(_ context.Context, object, _ runtime.Object) (*metav1.Table, error) {
	t := &metav1.Table{ColumnDefinitions: []metav1.TableColumnDefinition{
		{Name: "Name", Type: "string", Format: "name", Description: "Name of the resource"},
		{Name: string(corev1.ResourceCPU), Type: "string", Format: "quantity"},
		{Name: string(corev1.ResourceMemory), Type: "string", Format: "quantity"},
		{Name: "Window", Type: "string", Format: "duration"},
	}}
	add := func(o runtime.Object) error {
		at, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		usage, window := m.row(any(o).(*M))
		t.Rows = append(t.Rows, metav1.TableRow{
			Cells:  []any{at.GetName(), usage.Cpu().String(), usage.Memory().String(), window.String()},
			Object: runtime.RawExtension{Object: o},
		})
		return nil
	}
	if !meta.IsListType(object) {
		return t, add(object)
	}
	list, err := meta.ListAccessor(object)
	if err != nil {
		return nil, err
	}
	t.ListMeta = metav1.ListMeta{ResourceVersion: list.GetResourceVersion(), Continue: list.GetContinue(), RemainingItemCount: list.GetRemainingItemCount()}
	return t, meta.EachListItem(object, add)
}

func podMetrics(o runtime.Object, usage *pod.Usage) (m metrics.PodMetrics, ok bool) {
	p := o.(*core.Pod)
	used, ok := usage.Pods[p.UID]
	if !ok || p.Status.Phase != core.PodRunning {
		return m, false
	}
	m = metrics.PodMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name, Namespace: p.Namespace, Labels: p.Labels, CreationTimestamp: metav1.Now()},
		Timestamp:  metav1.NewTime(used.At), Window: metav1.Duration{Duration: used.Window},
	}
	for _, c := range used.Containers {
		m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: c.Name, Usage: quantities(c.Rates)})
	}
	return m, true
}

// nodeMetrics knows the machine that this agent runs on.
func (g *Gateway) nodeMetrics(o runtime.Object, usage *pod.Usage) (m metrics.NodeMetrics, ok bool) {
	n := o.(*core.Node)
	if n.Name != g.config.Node || usage.Node.Window <= 0 {
		return m, false
	}
	return metrics.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels, CreationTimestamp: metav1.Now()},
		Timestamp:  metav1.NewTime(usage.Node.At), Window: metav1.Duration{Duration: usage.Node.Window},
		Usage: quantities(usage.Node),
	}, true
}

func quantities(r pod.Rates) corev1.ResourceList {
	cpu := resource.NewScaledQuantity(r.CPU, resource.Nano)
	return corev1.ResourceList{corev1.ResourceCPU: *cpu, corev1.ResourceMemory: *resource.NewQuantity(r.Memory, resource.BinarySI)}
}

func podRow(m *metrics.PodMetrics) (corev1.ResourceList, time.Duration) {
	var cpu, memory resource.Quantity
	for _, c := range m.Containers {
		cpu.Add(*c.Usage.Cpu())
		memory.Add(*c.Usage.Memory())
	}
	return corev1.ResourceList{corev1.ResourceCPU: cpu, corev1.ResourceMemory: memory}, m.Window.Duration
}

func nodeRow(m *metrics.NodeMetrics) (corev1.ResourceList, time.Duration) {
	return m.Usage, m.Window.Duration
}
