// Package scheduler places pods that have no node yet: on a machine that fits,
// has room and is not tainted against them; among those, where the requests
// leave most room. What fits nowhere stays Pending with an event that says why,
// and is looked at again when something changes
// (https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/).
// One actor, in the shell of package reconcile.
package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/resource"
	schedulingv1 "k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"github.com/troupe-sh/troupe/actors/mailbox"
	"github.com/troupe-sh/troupe/actors/reconcile"
	"github.com/troupe-sh/troupe/api"
	"github.com/troupe-sh/troupe/api/command"
	"github.com/troupe-sh/troupe/cluster/journal"
)

const (
	component = "scheduler"
	name      = corev1.DefaultSchedulerName
	batchPods = 500
)

// quantity is an amount of a resource.
type quantity = apiresource.Quantity

// Resources are what the scheduler follows.
var Resources = []string{"pods", "nodes"}

// New returns what decides where pods go.
func New(hub *journal.Hub) func(mailbox.Work) reconcile.Decider {
	return func(mailbox.Work) reconcile.Decider { return &state{hub: hub} }
}

// state is what the scheduler knows of the cluster.
type state struct {
	hub      *journal.Hub
	machines map[string]*machine
	where    map[api.Key]string // bound pods that use room
	pending  map[api.Key]rank   // to be looked at
	waiting  map[api.Key]unfit  // fit nowhere
}

// rank is who is placed first: by priority, then by age. Neither ever changes.
type rank struct {
	priority int32
	created  time.Time
}

func rankOf(pod *corev1.Pod) rank {
	return rank{schedulingv1.PodPriority(pod), pod.CreationTimestamp.Time}
}

// unfit is a pod that fits nowhere.
type unfit struct {
	rank rank
	why  string // the reason that was said
}

// machine is a node and what is taken of it.
type machine struct {
	node  *corev1.Node
	pods  map[api.Key]demand
	taken map[corev1.ResourceName]int64
}

// demand is what a pod needs of a machine.
type demand struct {
	requests map[corev1.ResourceName]int64
	ports    []corev1.ContainerPort
}

// Reset implements [reconcile.Follower].
func (s *state) Reset() {
	s.machines, s.where = map[string]*machine{}, map[api.Key]string{}
	s.pending, s.waiting = map[api.Key]rank{}, map[api.Key]unfit{}
	for _, resource := range Resources {
		for _, record := range s.hub.List(resource, "") {
			s.see(record.Key, reconcile.Object(record))
		}
	}
}

// Changed implements [reconcile.Follower].
func (s *state) Changed(changes []journal.Changed) {
	for _, c := range changes {
		if c.New != nil {
			s.see(c.New.Key, reconcile.Object(c.New))
		} else {
			s.see(c.Old.Key, nil)
		}
	}
}

// see takes in how an object stands now; nil is gone.
func (s *state) see(key api.Key, object api.Object) {
	if key.Resource == "nodes" {
		node, _ := object.(*corev1.Node)
		m := s.machine(key.Name)
		if node == nil || m.node == nil || roomier(m.node, node) {
			s.retry()
		}
		m.node = node
		return
	}
	pod, _ := object.(*corev1.Pod)
	if pod == nil || pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil || ended(pod) {
		delete(s.pending, key)
		delete(s.waiting, key)
	}
	if pod == nil || ended(pod) {
		s.free(key)
		return
	}
	if pod.Spec.NodeName != "" {
		s.use(key, pod, pod.Spec.NodeName)
		return
	}
	_, waits := s.waiting[key]
	if pod.DeletionTimestamp == nil && len(pod.Spec.SchedulingGates) == 0 && pod.Spec.SchedulerName == name && !waits {
		s.pending[key] = rankOf(pod)
	}
}

func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// roomier tells whether a node may take pods now that it did not take before.
func roomier(was, is *corev1.Node) bool {
	return was.Spec.Unschedulable != is.Spec.Unschedulable || !maps.Equal(was.Labels, is.Labels) ||
		!slices.EqualFunc(was.Spec.Taints, is.Spec.Taints, func(a, b corev1.Taint) bool { return a.MatchTaint(&b) && a.Value == b.Value }) ||
		!maps.EqualFunc(was.Status.Allocatable, is.Status.Allocatable, func(a, b quantity) bool { return a.Cmp(b) == 0 })
}

func (s *state) machine(name string) *machine {
	m := s.machines[name]
	if m == nil {
		m = &machine{pods: map[api.Key]demand{}, taken: map[corev1.ResourceName]int64{}}
		s.machines[name] = m
	}
	return m
}

// use counts a pod on a node.
func (s *state) use(key api.Key, pod *corev1.Pod, node string) {
	if s.where[key] == node {
		return
	}
	s.free(key)
	m, d := s.machine(node), demandOf(pod)
	m.pods[key], s.where[key] = d, node
	for name, n := range d.requests {
		m.taken[name] += n
	}
}

// free takes a pod off its node; those that wait may fit now.
func (s *state) free(key api.Key) {
	node, ok := s.where[key]
	if !ok {
		return
	}
	m := s.machines[node]
	for name, n := range m.pods[key].requests {
		m.taken[name] -= n
	}
	delete(m.pods, key)
	delete(s.where, key)
	s.retry()
}

// retry looks again at everything that fitted nowhere.
func (s *state) retry() {
	for key, u := range s.waiting {
		s.pending[key] = u.rank
	}
}

func demandOf(pod *corev1.Pod) demand {
	d := demand{requests: map[corev1.ResourceName]int64{corev1.ResourcePods: 1}}
	for name, q := range resource.PodRequests(pod, resource.PodResourcesOptions{}) {
		d.requests[name] = amount(name, q)
	}
	lasting := slices.Clone(pod.Spec.Containers)
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; podutil.IsRestartableInitContainer(c) {
			lasting = append(lasting, *c)
		}
	}
	for _, c := range lasting {
		for _, p := range c.Ports {
			if p.HostPort > 0 {
				d.ports = append(d.ports, p)
			}
		}
	}
	return d
}

// Decide implements [reconcile.Decider].
func (s *state) Decide(now time.Time) reconcile.Decision {
	var d reconcile.Decision
	keys := slices.SortedFunc(maps.Keys(s.pending), s.order)
	for _, key := range keys[:min(len(keys), batchPods)] {
		delete(s.pending, key)
		record, ok := s.hub.Get(key)
		if !ok {
			continue
		}
		pod := reconcile.Object(record).(*corev1.Pod)
		if pod.Spec.NodeName != "" || pod.DeletionTimestamp != nil {
			continue
		}
		node, why := s.place(pod)
		if node == "" {
			d.Changes = append(d.Changes, s.cannot(pod, record, why, now)...)
			continue
		}
		delete(s.waiting, key)
		s.use(key, pod, node)
		bound := pod.DeepCopy()
		bound.Spec.NodeName = node
		condition(bound, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}, now)
		d.Changes = append(d.Changes,
			command.Change{Op: command.Update, Key: key, Object: bound, UID: pod.UID, Version: record.Seq},
			command.Event(pod, reconcile.Lookup(s.hub), component, "", corev1.EventTypeNormal, "Scheduled", fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, node), now))
	}
	if len(d.Changes) == 0 && len(s.pending) > 0 {
		d.Again = time.Millisecond // more than one batch, and nothing to say of this one
	}
	return d
}

// order is who of those pending is placed first: by rank, then by name.
func (s *state) order(a, b api.Key) int {
	x, y := s.pending[a], s.pending[b]
	return cmp.Or(cmp.Compare(y.priority, x.priority), x.created.Compare(y.created), a.Compare(b))
}

// Answered implements [reconcile.Decider]: a binding that was refused, or a
// reason that could not be told, is decided anew.
func (s *state) Answered(done []command.Change, results []command.Result, err error) {
	for i, c := range done {
		if c.Key.Resource == "pods" && (err != nil || results[i].Err != nil) {
			s.free(c.Key)
			delete(s.waiting, c.Key) // before see, which takes what waits for said
			record, _ := s.hub.Get(c.Key)
			s.see(c.Key, reconcile.Object(record))
		}
	}
}

// cannot says that a pod fits nowhere, once for each reason.
func (s *state) cannot(pod *corev1.Pod, record *journal.Record, why string, now time.Time) []command.Change {
	if s.waiting[record.Key].why == why {
		return nil
	}
	s.waiting[record.Key] = unfit{rankOf(pod), why}
	told := pod.DeepCopy()
	condition(told, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: why}, now)
	return []command.Change{
		{Op: command.Status, Key: record.Key, Object: told, UID: pod.UID, Version: record.Seq},
		command.Event(pod, reconcile.Lookup(s.hub), component, "", corev1.EventTypeWarning, "FailedScheduling", why, now),
	}
}

func condition(pod *corev1.Pod, c corev1.PodCondition, now time.Time) {
	c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	c.ObservedGeneration = pod.Generation
	for i, was := range pod.Status.Conditions {
		if was.Type == c.Type {
			if was.Status == c.Status {
				c.LastTransitionTime = was.LastTransitionTime
			}
			pod.Status.Conditions[i] = c
			return
		}
	}
	pod.Status.Conditions = append(pod.Status.Conditions, c)
}

// place finds the best node for a pod, or says why there is none.
func (s *state) place(pod *corev1.Pod) (node, why string) {
	d := demandOf(pod)
	affinity := nodeaffinity.GetRequiredNodeAffinity(pod)
	reasons := map[string]int{}
	total := 0
	var best float64
	for _, name := range slices.Sorted(maps.Keys(s.machines)) {
		m := s.machines[name]
		if m.node == nil {
			continue
		}
		total++
		if against := m.against(pod, d, affinity); len(against) > 0 {
			for _, r := range against {
				reasons[r]++
			}
			continue
		}
		if score := m.room(d); node == "" || score > best {
			node, best = name, score
		}
	}
	if node != "" {
		return node, ""
	}
	var parts []string
	for r, n := range reasons {
		parts = append(parts, fmt.Sprintf("%d %s", n, r))
	}
	slices.Sort(parts)
	if total == 0 {
		return "", "no nodes available to schedule pods"
	}
	return "", fmt.Sprintf("0/%d nodes are available: %s.", total, strings.Join(parts, ", "))
}

// against lists why a pod cannot go to this machine, in Kubernetes' words.
func (m *machine) against(pod *corev1.Pod, d demand, affinity nodeaffinity.RequiredNodeAffinity) (reasons []string) {
	if m.node.Spec.Unschedulable && !schedulingv1.TolerationsTolerateTaint(klog.Background(), pod.Spec.Tolerations, &corev1.Taint{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}, false) {
		return []string{"node(s) were unschedulable"}
	}
	if taint, found := schedulingv1.FindMatchingUntoleratedTaint(klog.Background(), m.node.Spec.Taints, pod.Spec.Tolerations, func(t *corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoSchedule || t.Effect == corev1.TaintEffectNoExecute
	}, false); found {
		return []string{fmt.Sprintf("node(s) had untolerated taint {%s: %s}", taint.Key, taint.Value)}
	}
	if ok, err := affinity.Match(m.node); err != nil || !ok {
		return []string{"node(s) didn't match Pod's node affinity/selector"}
	}
	for _, p := range d.ports {
		if m.occupied(p) {
			reasons = append(reasons, "node(s) didn't have free ports for the requested pod ports")
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.requests)) {
		n := d.requests[name]
		if n > 0 && m.taken[name]+n > amount(name, m.node.Status.Allocatable[name]) {
			if name == corev1.ResourcePods {
				reasons = append(reasons, "Too many pods")
			} else {
				reasons = append(reasons, "Insufficient "+string(name))
			}
		}
	}
	return reasons
}

func (m *machine) occupied(p corev1.ContainerPort) bool {
	anywhere := func(ip string) bool { return ip == "" || ip == "0.0.0.0" }
	for _, d := range m.pods {
		for _, o := range d.ports {
			if o.HostPort == p.HostPort && o.Protocol == p.Protocol && (o.HostIP == p.HostIP || anywhere(o.HostIP) || anywhere(p.HostIP)) {
				return true
			}
		}
	}
	return false
}

// room is the share of cpu, memory and pods that stays free with the pod there.
func (m *machine) room(d demand) (score float64) {
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourcePods} {
		if all := amount(name, m.node.Status.Allocatable[name]); all > 0 {
			score += float64(all-m.taken[name]-d.requests[name]) / float64(all)
		}
	}
	return score
}

// amount is cpu in thousandths, everything else in units.
func amount(name corev1.ResourceName, q quantity) int64 {
	if name == corev1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}
