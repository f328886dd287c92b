package api

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// verdict is what Troupe does with a field of a spec.
type verdict uint8

const (
	acts    verdict = iota // does what it says; or the field can have no effect of its own
	ignores                // accepted; the client is warned that nothing comes of it
	refuses                // the object would be wrong without it
)

// rule is the verdict on a field and all below it.
type rule struct {
	verdict verdict
	advice  string   // what to do instead, or what happens instead
	unless  []string // values that say no more than leaving it out
}

const (
	noVolume  = "use emptyDir, hostPath, configMap, secret, downwardAPI or projected until this kind of volume exists"
	noBundle  = "put it into a ConfigMap or Secret and project that"
	noSELinux = "the container runs without it"
	oneChoice = "pods are placed by requests, required node affinity, host ports and taints"
)

// rules is every field of the specs of the kinds, by its path. A field that is
// not here must lead to others that are: a test sees to it, so that a new
// release of Kubernetes cannot bring one in that is dropped silently.
var rules = map[string]rule{
	"Namespace.finalizers": {verdict: acts},

	"Node.configSource":  {ignores, "machines are configured by their agent", nil},
	"Node.externalID":    {ignores, "use providerID", nil},
	"Node.podCIDR":       {verdict: acts},
	"Node.podCIDRs":      {verdict: acts},
	"Node.providerID":    {verdict: acts},
	"Node.taints":        {verdict: acts},
	"Node.unschedulable": {verdict: acts},

	"ReplicationController.minReadySeconds":   {verdict: acts},
	"ReplicationController.replicas":          {verdict: acts},
	"ReplicationController.selector":          {verdict: acts},
	"ReplicationController.template.metadata": {verdict: acts},

	"Pod.activeDeadlineSeconds":         {verdict: acts},
	"Pod.automountServiceAccountToken":  {ignores, "no token is mounted", []string{"false"}},
	"Pod.dnsConfig":                     {verdict: acts},
	"Pod.dnsPolicy":                     {verdict: acts},
	"Pod.enableServiceLinks":            {verdict: acts}, // there are no services yet
	"Pod.ephemeralContainers":           {refuses, "use exec to look into a container", nil},
	"Pod.hostAliases":                   {verdict: acts},
	"Pod.hostIPC":                       {verdict: acts},
	"Pod.hostNetwork":                   {verdict: acts},
	"Pod.hostPID":                       {verdict: acts},
	"Pod.hostUsers":                     {refuses, "pods share the machine's user namespace; leave it out or say true", []string{"true"}},
	"Pod.hostname":                      {verdict: acts},
	"Pod.hostnameOverride":              {refuses, "use hostname", nil},
	"Pod.imagePullSecrets":              {verdict: acts},
	"Pod.nodeName":                      {verdict: acts},
	"Pod.nodeSelector":                  {verdict: acts},
	"Pod.os":                            {refuses, "the machines run linux", []string{"{linux}"}},
	"Pod.overhead":                      {verdict: acts},
	"Pod.preemptionPolicy":              {ignores, "no pod makes room for another", []string{"Never"}},
	"Pod.priority":                      {ignores, "all pods have the same priority", []string{"0"}},
	"Pod.priorityClassName":             {ignores, "all pods have the same priority", nil},
	"Pod.readinessGates":                {verdict: acts},
	"Pod.resourceClaims":                {refuses, "there is no dynamic resource allocation", nil},
	"Pod.resources":                     {verdict: acts},
	"Pod.restartPolicy":                 {verdict: acts},
	"Pod.runtimeClassName":              {verdict: acts},
	"Pod.schedulerName":                 {verdict: acts},
	"Pod.schedulingGates":               {verdict: acts},
	"Pod.schedulingGroup":               {ignores, oneChoice, nil},
	"Pod.serviceAccount":                {ignores, "there are no service accounts yet", []string{"default"}},
	"Pod.serviceAccountName":            {ignores, "there are no service accounts yet", []string{"default"}},
	"Pod.setHostnameAsFQDN":             {ignores, "the host name is the short one", []string{"false"}},
	"Pod.shareProcessNamespace":         {verdict: acts},
	"Pod.subdomain":                     {verdict: acts},
	"Pod.terminationGracePeriodSeconds": {verdict: acts},
	"Pod.tolerations":                   {verdict: acts},
	"Pod.topologySpreadConstraints":     {ignores, oneChoice, nil},

	"Pod.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution": {ignores, oneChoice, nil},
	"Pod.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution":  {verdict: acts},
	"Pod.affinity.podAffinity":     {ignores, oneChoice, nil},
	"Pod.affinity.podAntiAffinity": {ignores, oneChoice, nil},

	"Pod.securityContext.appArmorProfile":          {ignores, "the runtime's own profile stands", nil},
	"Pod.securityContext.fsGroup":                  {verdict: acts},
	"Pod.securityContext.fsGroupChangePolicy":      {ignores, "the group of a volume is set each time", nil},
	"Pod.securityContext.runAsGroup":               {verdict: acts},
	"Pod.securityContext.runAsNonRoot":             {verdict: acts},
	"Pod.securityContext.runAsUser":                {verdict: acts},
	"Pod.securityContext.seLinuxChangePolicy":      {ignores, noSELinux, nil},
	"Pod.securityContext.seLinuxOptions":           {ignores, noSELinux, nil},
	"Pod.securityContext.seccompProfile":           {verdict: acts},
	"Pod.securityContext.supplementalGroups":       {verdict: acts},
	"Pod.securityContext.supplementalGroupsPolicy": {ignores, "groups are merged with the image's", []string{"Merge"}},
	"Pod.securityContext.sysctls":                  {verdict: acts},
	"Pod.securityContext.windowsOptions":           {refuses, "the machines run linux", nil},

	"Pod.containers[].args":                             {verdict: acts},
	"Pod.containers[].command":                          {verdict: acts},
	"Pod.containers[].env[].name":                       {verdict: acts},
	"Pod.containers[].env[].value":                      {verdict: acts},
	"Pod.containers[].env[].valueFrom.configMapKeyRef":  {verdict: acts},
	"Pod.containers[].env[].valueFrom.fieldRef":         {verdict: acts},
	"Pod.containers[].env[].valueFrom.fileKeyRef":       {refuses, "take the value from a ConfigMap or Secret", nil},
	"Pod.containers[].env[].valueFrom.resourceFieldRef": {verdict: acts},
	"Pod.containers[].env[].valueFrom.secretKeyRef":     {verdict: acts},
	"Pod.containers[].envFrom":                          {verdict: acts},
	"Pod.containers[].image":                            {verdict: acts},
	"Pod.containers[].imagePullPolicy":                  {verdict: acts},
	"Pod.containers[].lifecycle.postStart":              {verdict: acts},
	"Pod.containers[].lifecycle.preStop":                {verdict: acts},
	"Pod.containers[].lifecycle.stopSignal":             {ignores, "the image's stop signal is sent", nil},
	"Pod.containers[].livenessProbe":                    {verdict: acts},
	"Pod.containers[].name":                             {verdict: acts},
	"Pod.containers[].ports":                            {verdict: acts},
	"Pod.containers[].readinessProbe":                   {verdict: acts},
	"Pod.containers[].resizePolicy":                     {verdict: acts}, // nothing is resized
	"Pod.containers[].resources.claims":                 {refuses, "there is no dynamic resource allocation", nil},
	"Pod.containers[].resources.limits":                 {verdict: acts},
	"Pod.containers[].resources.requests":               {verdict: acts},
	"Pod.containers[].restartPolicy":                    {verdict: acts},
	"Pod.containers[].restartPolicyRules[].action":      {refuses, "the container that ended is restarted, no others: say Restart", []string{"Restart"}},
	"Pod.containers[].restartPolicyRules[].exitCodes":   {verdict: acts},
	"Pod.containers[].startupProbe":                     {verdict: acts},
	"Pod.containers[].stdin":                            {verdict: acts},
	"Pod.containers[].stdinOnce":                        {verdict: acts},
	"Pod.containers[].terminationMessagePath":           {verdict: acts},
	"Pod.containers[].terminationMessagePolicy":         {verdict: acts},
	"Pod.containers[].tty":                              {verdict: acts},
	"Pod.containers[].volumeDevices":                    {refuses, "mount a volume with files instead", nil},
	"Pod.containers[].workingDir":                       {verdict: acts},

	"Pod.containers[].securityContext.allowPrivilegeEscalation": {verdict: acts},
	"Pod.containers[].securityContext.appArmorProfile":          {ignores, "the runtime's own profile stands", nil},
	"Pod.containers[].securityContext.capabilities":             {verdict: acts},
	"Pod.containers[].securityContext.privileged":               {verdict: acts},
	"Pod.containers[].securityContext.procMount":                {verdict: acts},
	"Pod.containers[].securityContext.readOnlyRootFilesystem":   {verdict: acts},
	"Pod.containers[].securityContext.runAsGroup":               {verdict: acts},
	"Pod.containers[].securityContext.runAsNonRoot":             {verdict: acts},
	"Pod.containers[].securityContext.runAsUser":                {verdict: acts},
	"Pod.containers[].securityContext.seLinuxOptions":           {ignores, noSELinux, nil},
	"Pod.containers[].securityContext.seccompProfile":           {verdict: acts},
	"Pod.containers[].securityContext.windowsOptions":           {refuses, "the machines run linux", nil},

	"Pod.containers[].volumeMounts[].mountPath":         {verdict: acts},
	"Pod.containers[].volumeMounts[].mountPropagation":  {verdict: acts},
	"Pod.containers[].volumeMounts[].name":              {verdict: acts},
	"Pod.containers[].volumeMounts[].readOnly":          {verdict: acts},
	"Pod.containers[].volumeMounts[].recursiveReadOnly": {refuses, "mounts below it can be written to; say IfPossible", []string{"Disabled", "IfPossible"}},
	"Pod.containers[].volumeMounts[].subPath":           {verdict: acts},
	"Pod.containers[].volumeMounts[].subPathExpr":       {verdict: acts},

	"Pod.volumes[].awsElasticBlockStore":  {refuses, noVolume, nil},
	"Pod.volumes[].azureDisk":             {refuses, noVolume, nil},
	"Pod.volumes[].azureFile":             {refuses, noVolume, nil},
	"Pod.volumes[].cephfs":                {refuses, noVolume, nil},
	"Pod.volumes[].cinder":                {refuses, noVolume, nil},
	"Pod.volumes[].configMap":             {verdict: acts},
	"Pod.volumes[].csi":                   {refuses, noVolume, nil},
	"Pod.volumes[].downwardAPI":           {verdict: acts},
	"Pod.volumes[].emptyDir.medium":       {verdict: acts},
	"Pod.volumes[].emptyDir.sizeLimit":    {ignores, "only a volume in memory is held to it", nil},
	"Pod.volumes[].ephemeral":             {refuses, noVolume, nil},
	"Pod.volumes[].fc":                    {refuses, noVolume, nil},
	"Pod.volumes[].flexVolume":            {refuses, noVolume, nil},
	"Pod.volumes[].flocker":               {refuses, noVolume, nil},
	"Pod.volumes[].gcePersistentDisk":     {refuses, noVolume, nil},
	"Pod.volumes[].gitRepo":               {refuses, noVolume, nil},
	"Pod.volumes[].glusterfs":             {refuses, noVolume, nil},
	"Pod.volumes[].hostPath":              {verdict: acts},
	"Pod.volumes[].image":                 {refuses, noVolume, nil},
	"Pod.volumes[].iscsi":                 {refuses, noVolume, nil},
	"Pod.volumes[].name":                  {verdict: acts},
	"Pod.volumes[].nfs":                   {refuses, noVolume, nil},
	"Pod.volumes[].persistentVolumeClaim": {refuses, noVolume, nil},
	"Pod.volumes[].photonPersistentDisk":  {refuses, noVolume, nil},
	"Pod.volumes[].portworxVolume":        {refuses, noVolume, nil},
	"Pod.volumes[].quobyte":               {refuses, noVolume, nil},
	"Pod.volumes[].rbd":                   {refuses, noVolume, nil},
	"Pod.volumes[].scaleIO":               {refuses, noVolume, nil},
	"Pod.volumes[].secret":                {verdict: acts},
	"Pod.volumes[].storageos":             {refuses, noVolume, nil},
	"Pod.volumes[].vsphereVolume":         {refuses, noVolume, nil},

	"Pod.volumes[].projected.defaultMode":                   {verdict: acts},
	"Pod.volumes[].projected.sources[].clusterTrustBundle":  {refuses, noBundle, nil},
	"Pod.volumes[].projected.sources[].configMap":           {verdict: acts},
	"Pod.volumes[].projected.sources[].downwardAPI":         {verdict: acts},
	"Pod.volumes[].projected.sources[].podCertificate":      {refuses, noBundle, nil},
	"Pod.volumes[].projected.sources[].secret":              {verdict: acts},
	"Pod.volumes[].projected.sources[].serviceAccountToken": {refuses, "there are no service accounts yet", nil},
}

// specs are the types that the rules are about, by the first word of their paths.
var specs = map[string]reflect.Type{
	"Namespace":             reflect.TypeFor[corev1.NamespaceSpec](),
	"Node":                  reflect.TypeFor[corev1.NodeSpec](),
	"Pod":                   reflect.TypeFor[corev1.PodSpec](),
	"ReplicationController": reflect.TypeFor[corev1.ReplicationControllerSpec](),
}

// Unsupported tells which fields of an object Troupe does not act on: those
// that its client is to be warned of, and those without which it would be
// wrong, so that it must be refused.
func Unsupported(o Object) (warnings []string, errs field.ErrorList) {
	spec := field.NewPath("spec")
	visit := func(at *field.Path, r rule) {
		if r.verdict == refuses {
			errs = append(errs, field.Forbidden(at, "Troupe does not have this yet: "+r.advice))
		} else {
			warnings = append(warnings, fmt.Sprintf("%s: Troupe does not act on it yet: %s", at, r.advice))
		}
	}
	switch o := o.(type) {
	case *corev1.Pod:
		plans()["Pod"].walk(reflect.ValueOf(&o.Spec), spec, visit)
	case *corev1.ReplicationController:
		plans()["ReplicationController"].walk(reflect.ValueOf(&o.Spec), spec, visit)
	case *corev1.Node:
		plans()["Node"].walk(reflect.ValueOf(&o.Spec), spec, visit)
	case *corev1.Namespace:
		plans()["Namespace"].walk(reflect.ValueOf(&o.Spec), spec, visit)
	}
	return warnings, errs
}

// plan is how to look through a struct for fields that rules speak of.
type plan []step

type step struct {
	index int
	name  string // in JSON; empty if the field's own stand in its place
	rule  *rule  // nil: look inside
	below plan
}

var plans = sync.OnceValue(func() map[string]plan {
	m := map[string]plan{}
	for name, t := range specs {
		m[name] = planOf(t, name, nil)
	}
	return m
})

// planOf leaves out what Troupe acts on. Every field that has a rule goes to
// found, and those that have none, which the test does not let pass.
func planOf(t reflect.Type, path string, found func(path string, r *rule)) plan {
	var p plan
	for i := range t.NumField() {
		f := t.Field(i)
		s := step{index: i}
		s.name, _, _ = strings.Cut(f.Tag.Get("json"), ",")
		at := path
		if s.name != "" {
			at += "." + s.name
		}
		if r, ok := rules[at]; ok {
			if found != nil {
				found(at, &r)
			}
			if r.verdict != acts {
				s.rule = &r
				p = append(p, s)
			}
			continue
		}
		inner := f.Type
		for inner.Kind() == reflect.Pointer || inner.Kind() == reflect.Slice {
			if inner.Kind() == reflect.Slice {
				at += "[]"
			}
			inner = inner.Elem()
		}
		switch {
		case inner == specs["Pod"]:
			s.below = planOf(inner, "Pod", found) // a template's
		case inner == reflect.TypeFor[corev1.Container]():
			s.below = planOf(inner, "Pod.containers[]", found) // an init container's, too
		case inner.Kind() == reflect.Struct:
			s.below = planOf(inner, at, found)
		case found != nil:
			found(at, nil)
		}
		if len(s.below) > 0 {
			p = append(p, s)
		}
	}
	return p
}

// walk calls visit for every field of v that is set and not acted on.
func (p plan) walk(v reflect.Value, at *field.Path, visit func(*field.Path, rule)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			p.walk(v.Elem(), at, visit)
		}
		return
	case reflect.Slice:
		for i := range v.Len() {
			p.walk(v.Index(i), at.Index(i), visit)
		}
		return
	}
	for _, s := range p {
		f, under := v.Field(s.index), at
		if f.IsZero() {
			continue
		}
		if s.name != "" {
			under = at.Child(s.name)
		}
		if s.rule == nil {
			s.below.walk(f, under, visit)
			continue
		}
		if f.Kind() == reflect.Slice && f.Len() == 0 || len(s.rule.unless) > 0 && slices.Contains(s.rule.unless, fmt.Sprint(reflect.Indirect(f))) {
			continue
		}
		visit(under, *s.rule)
	}
}
