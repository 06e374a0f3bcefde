package check

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// objects are those of one overlay. A pod is what its Deployment or StatefulSet
// makes, by the name of that.
type objects struct {
	pods       map[string]core.PodTemplateSpec
	selectors  map[string]*meta.LabelSelector
	services   []core.Service
	policies   []networking.NetworkPolicy
	budgets    []policy.PodDisruptionBudget
	monitors   []monitoring.PodMonitor
	rules      []monitoring.PrometheusRule
	configMaps map[string]bool
	secrets    map[string]bool
}

// decode reads what Kustomize has made, strictly: a field that Kubernetes does not know,
// or of another type, fails the test.
func decode(t *testing.T, text []byte) *objects {
	t.Helper()
	o := &objects{
		pods: map[string]core.PodTemplateSpec{}, selectors: map[string]*meta.LabelSelector{},
		configMaps: map[string]bool{}, secrets: map[string]bool{},
	}
	for doc := range bytes.SplitSeq(text, []byte("\n---\n")) {
		var kind meta.TypeMeta
		if err := yaml.Unmarshal(doc, &kind); err != nil {
			t.Fatal(err)
		}
		strictly := func(into any) {
			t.Helper()
			if err := yaml.UnmarshalStrict(doc, into); err != nil {
				t.Errorf("%v in:\n%s", err, doc)
			}
		}
		switch kind.APIVersion + " " + kind.Kind {
		case "apps/v1 Deployment":
			var d apps.Deployment
			strictly(&d)
			o.pods[d.Name], o.selectors[d.Name] = d.Spec.Template, d.Spec.Selector
		case "apps/v1 StatefulSet":
			var s apps.StatefulSet
			strictly(&s)
			for _, claim := range s.Spec.VolumeClaimTemplates {
				s.Spec.Template.Spec.Volumes = append(s.Spec.Template.Spec.Volumes, core.Volume{Name: claim.Name})
			}
			o.pods[s.Name], o.selectors[s.Name] = s.Spec.Template, s.Spec.Selector
		case "v1 Service":
			o.services = append(o.services, core.Service{})
			strictly(&o.services[len(o.services)-1])
		case "networking.k8s.io/v1 NetworkPolicy":
			o.policies = append(o.policies, networking.NetworkPolicy{})
			strictly(&o.policies[len(o.policies)-1])
		case "policy/v1 PodDisruptionBudget":
			o.budgets = append(o.budgets, policy.PodDisruptionBudget{})
			strictly(&o.budgets[len(o.budgets)-1])
		case "monitoring.coreos.com/v1 PodMonitor":
			o.monitors = append(o.monitors, monitoring.PodMonitor{})
			strictly(&o.monitors[len(o.monitors)-1])
		case "monitoring.coreos.com/v1 PrometheusRule":
			o.rules = append(o.rules, monitoring.PrometheusRule{})
			strictly(&o.rules[len(o.rules)-1])
		case "v1 ConfigMap":
			var m core.ConfigMap
			strictly(&m)
			o.configMaps[m.Name] = true
		case "v1 Secret":
			var s core.Secret
			strictly(&s)
			o.secrets[s.Name] = true
		default:
			t.Errorf("an object of an unknown kind: %v", kind)
		}
	}
	return o
}

// Kubernetes takes every object, and every name in one of them that leads to another
// one leads there: selectors to pods, ports to the ports of containers, mounts to
// volumes, and those to the files that Kustomize has made.
func TestObjects(t *testing.T) {
	for _, name := range overlays {
		t.Run(name, func(t *testing.T) {
			o := decode(t, render(t, name))
			for name, pod := range o.pods {
				checkPod(t, name, pod, o)
			}
			for _, s := range o.services {
				pod := o.selected(t, s.Name, labels.SelectorFromSet(s.Spec.Selector))
				for _, port := range s.Spec.Ports {
					checkPort(t, s.Name, pod, port.TargetPort)
				}
			}
			for _, b := range o.budgets {
				o.selected(t, b.Name, selector(t, b.Spec.Selector))
			}
			for _, m := range o.monitors {
				pod := o.selected(t, m.Name, selector(t, &m.Spec.Selector))
				for _, e := range m.Spec.PodMetricsEndpoints {
					checkPort(t, m.Name, pod, intstr.FromString(*e.Port))
				}
			}
			for _, p := range o.policies {
				for _, rule := range p.Spec.Ingress {
					for _, port := range rule.Ports {
						checkPort(t, p.Name, o.selected(t, p.Name, selector(t, &p.Spec.PodSelector)), *port.Port)
					}
				}
			}
		})
	}
}

func selector(t *testing.T, s *meta.LabelSelector) labels.Selector {
	t.Helper()
	out, err := meta.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// selected returns the one pod that a selector selects.
func (o *objects) selected(t *testing.T, by string, s labels.Selector) core.PodTemplateSpec {
	t.Helper()
	var found []core.PodTemplateSpec
	for _, pod := range o.pods {
		if s.Matches(labels.Set(pod.Labels)) {
			found = append(found, pod)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s selects %d kinds of pods (%v), want 1", by, len(found), s)
	}
	return found[0]
}

func checkPort(t *testing.T, by string, pod core.PodTemplateSpec, port intstr.IntOrString) {
	t.Helper()
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				return
			}
		}
	}
	t.Errorf("%s names the port %q, which no container has", by, port.String())
}

func checkPod(t *testing.T, name string, pod core.PodTemplateSpec, o *objects) {
	t.Helper()
	if !selector(t, o.selectors[name]).Matches(labels.Set(pod.Labels)) {
		t.Errorf("%s does not select its own pods", name)
	}
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = true
		if v.Secret != nil && !o.secrets[v.Secret.SecretName] || v.ConfigMap != nil && !o.configMaps[v.ConfigMap.Name] {
			t.Errorf("%s: nothing makes what the volume %s is of", name, v.Name)
		}
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				t.Errorf("%s: %s mounts %s, which is no volume", name, c.Name, m.Name)
			}
		}
		for _, p := range []*core.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
			switch {
			case p != nil && p.HTTPGet != nil && p.TCPSocket == nil:
				checkPort(t, c.Name, pod, p.HTTPGet.Port)
			case p != nil && p.TCPSocket != nil && p.HTTPGet == nil:
				checkPort(t, c.Name, pod, p.TCPSocket.Port)
			case p != nil:
				t.Errorf("%s: a probe that is not of one kind: %v", c.Name, p)
			}
		}
	}
}

// The image is all that changes with the first overlay.
func TestImageOnly(t *testing.T) {
	before, after := string(render(t, "swpt")), string(render(t, "image"))
	const old = "ghcr.io/swaptacular/swpt_stomp@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	if got := strings.ReplaceAll(before, old, "registry.example.com/peerlink:1.0"); got != after {
		t.Errorf("more than the image has changed:\n%s", after)
	}
}

// With the second overlay the clients are gone, the servers can reach peers anywhere,
// Deployment and Service select what they did (a Deployment's selector can not be
// changed), and the pods can do little besides.
func TestServe(t *testing.T) {
	before, o := decode(t, render(t, "swpt")), decode(t, render(t, "serve"))
	if len(o.pods) != 1 {
		t.Errorf("there are %d kinds of pods, want only stomp-server", len(o.pods))
	}
	if !reflect.DeepEqual(o.selectors["stomp-server"], before.selectors["stomp-server"]) || !reflect.DeepEqual(o.services, before.services) {
		t.Error("the selector or the Service has changed")
	}
	pod := o.pods["stomp-server"]
	if !reachesAll(t, o, pod) {
		t.Error("no network policy lets the pods connect to peers")
	}
	if reachesAll(t, before, before.pods["stomp-server"]) {
		t.Error("the stand-in lets its servers out, so nothing was tested")
	}
	checkConfined(t, pod)
}

// reachesAll reports whether the policies let a pod connect to any address.
func reachesAll(t *testing.T, o *objects, pod core.PodTemplateSpec) bool {
	t.Helper()
	for _, p := range o.policies {
		for _, rule := range p.Spec.Egress {
			if selector(t, &p.Spec.PodSelector).Matches(labels.Set(pod.Labels)) && len(rule.To) == 0 && len(rule.Ports) == 0 {
				return true
			}
		}
	}
	return false
}

// The pod of the small node has no more rights than it needs either.
func TestSmall(t *testing.T) {
	checkConfined(t, decode(t, render(t, "small")).pods["peerlink"])
}

// checkConfined checks for what Kubernetes calls the restricted standard, a read-only
// root file system, and the memory that is asked for.
func checkConfined(t *testing.T, pod core.PodTemplateSpec) {
	t.Helper()
	p := pod.Spec.SecurityContext
	if p == nil || p.RunAsNonRoot == nil || !*p.RunAsNonRoot || p.SeccompProfile == nil || p.SeccompProfile.Type != core.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context is %v", p)
	}
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken {
		t.Error("the pod gets a token of the API server, for which it has no use")
	}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || !reflect.DeepEqual(s.Capabilities.Drop, []core.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
			t.Errorf("%s: the security context is %v", c.Name, s)
		}
	}
	for _, c := range pod.Spec.Containers {
		if got := c.Resources.Requests.Memory().String(); got != "64Mi" {
			t.Errorf("%s asks for %s of memory, want 64Mi", c.Name, got)
		}
	}
}

// The alerts are the same for Prometheus with and without the operator.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile("../../prometheus/peerlink.rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var want monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(text, &want); err != nil {
		t.Fatal(err)
	}
	rules := decode(t, render(t, "serve")).rules
	if len(rules) != 1 || !reflect.DeepEqual(rules[0].Spec, want) {
		t.Error("deploy/kubernetes/monitoring/rules.yaml and deploy/prometheus/peerlink.rules.yml differ")
	}
}
