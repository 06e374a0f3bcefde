package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// manifest holds the fields of an object in deploy/kubernetes, of any kind, that the tests
// use.
type manifest struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				InitContainers []container `yaml:"initContainers"`
				Containers     []container
			}
		}
		Groups []struct {
			Rules []struct{ Expr string }
		}
	}
}

type container struct {
	Name, Image string
	Args        []string
	Env         []struct{ Name, Value string }
	Ports       []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	VolumeMounts []struct {
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
	StartupProbe   probe `yaml:"startupProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	ReadinessProbe probe `yaml:"readinessProbe"`
}

type probe struct {
	HTTPGet struct{ Path, Port string } `yaml:"httpGet"`
}

// manifests returns the output of Kustomize for an overlay in deploy/kubernetes, from files
// in the repository. A test in that folder checks that these files are up to date.
func manifests(t *testing.T, overlay string) (all []manifest) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/kubernetes/check/testdata/rendered/" + overlay + ".yaml")
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var m manifest
		if err := d.Decode(&m); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", overlay, err)
		}
		all = append(all, m)
	}
}

// peerlinks returns the containers that run peerlink.
func peerlinks(t *testing.T, overlay string) (all []container) {
	t.Helper()
	for _, m := range manifests(t, overlay) {
		for _, c := range append(m.Spec.Template.Spec.InitContainers, m.Spec.Template.Spec.Containers...) {
			if strings.Contains(c.Image, "peerlink") {
				all = append(all, c)
			}
		}
	}
	if len(all) == 0 {
		t.Fatalf("%s runs no peerlink", overlay)
	}
	return all
}

// notFlags are the variables of the manifests that neither set a flag nor are part of the
// value of another variable.
var notFlags = map[string]string{
	"GOMEMLIMIT":          "read by Go itself",
	"SWPT_NODEDATA_URL":   "takes the place of --dir",
	"NODEINFO_UPDATED_AT": "makes Kubernetes replace the pod",
}

// Each container in the manifests runs an existing command, and each of its environment
// variables is used by the command, so that no variable is misspelled or out of date.
func TestKubernetesVariables(t *testing.T) {
	t.Parallel()
	for _, overlay := range []string{"image", "serve", "small"} {
		containers := peerlinks(t, overlay)
		// The reference's manifests set the same variables for each of its commands.
		var help string
		for _, c := range containers {
			cmd := exec.Command(os.Args[0], c.Args[0], "--help")
			cmd.Env = append(os.Environ(), runMain+"=1")
			text, err := cmd.Output()
			if err != nil {
				t.Errorf("%s: %s: %v", overlay, c.Args, err)
			}
			help += string(text)
		}
		for _, c := range containers {
			values := strings.Join(c.Args, " ")
			for _, e := range c.Env {
				values += " " + e.Value
			}
			for _, e := range c.Env {
				flag := regexp.MustCompile(`\(env ([A-Z_]+, )*` + e.Name + `[,)]`).MatchString(help)
				if !flag && notFlags[e.Name] == "" && !strings.Contains(values, "$("+e.Name+")") {
					t.Errorf("%s: %s has no use for %s", overlay, c.Name, e.Name)
				}
			}
		}
	}
}

// The service that the manifests run works: with their arguments and environment it listens
// on the ports of the container, answers the probes, and exports each metric that is used in
// an alert; SIGTERM ends it in time with exit code 0.
func TestKubernetesServe(t *testing.T) {
	t.Parallel()
	for _, overlay := range []string{"small", "serve"} {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			var url string
			if overlay == "serve" {
				url = rabbittest.Get(t).URL()
			}
			s := newServer(t, nodetype.AccountingAuthority)
			nodetest.Peer(t, s.Node, nodetest.New(t, nodetype.CreditorsAgent, "127.0.0.1:1"))
			p := startPod(t, s, peerlinks(t, overlay)[0], url)
			c := p.container
			until(t, "the pod is ready", func() error {
				return errors.Join(p.probe(c.StartupProbe), p.probe(c.LivenessProbe), p.probe(c.ReadinessProbe))
			})
			conn, err := net.Dial("tcp", p.ports["stomp"])
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			metrics, err := p.get("admin", "/metrics")
			if err != nil {
				t.Fatal(err)
			}
			for name := range alertMetrics(t) {
				// With RabbitMQ there are no metrics of the embedded broker.
				if !strings.Contains(metrics, "# TYPE "+name+" ") && !(overlay == "serve" && embeddedOnly.MatchString(name)) {
					t.Errorf("the metric %s, which an alert uses, does not exist", name)
				}
			}
			if err := p.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := p.code(); code != 0 {
				t.Errorf("exit code %d after SIGTERM:\n%s", code, p.output)
			}
		})
	}
}

// embeddedOnly matches the names of the metrics of the embedded broker.
var embeddedOnly = regexp.MustCompile(`^peerlink_(queue_|store_|unconsumed_|peer_quota_)`)

// alertMetrics returns the names of peerlink's metrics that are used in alerts.
func alertMetrics(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range manifests(t, "serve") {
		for _, g := range m.Spec.Groups {
			for _, r := range g.Rules {
				for _, name := range regexp.MustCompile(`\bpeerlink_\w+`).FindAllString(r.Expr, -1) {
					names[name] = true
				}
			}
		}
	}
	if len(names) == 0 {
		t.Fatal("no alert uses a metric")
	}
	return names
}

// pod is a container of the manifests that runs as a process.
type pod struct {
	*running
	container container
	ports     map[string]string // addresses, by the names of the ports
}

// startPod starts the program of a container as a process, with two differences: the mounted
// volumes are in other folders, and the ports are replaced by free ones.
func startPod(t *testing.T, s *server, c container, brokerURL string) *pod {
	t.Helper()
	root, err := os.MkdirTemp("", "peerlink-pod-") // paths of Unix sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	p := &pod{container: c, ports: map[string]string{}}
	values := []string{"$(rmq_connection_string)", brokerURL, "$(APP_K8S_NAMESPACE)", "example"}
	for _, m := range c.VolumeMounts {
		values = append(values, m.MountPath, root+m.MountPath)
		if err := os.MkdirAll(root+m.MountPath, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range c.Ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		p.ports[port.Name] = l.Addr().String()
		_, free, _ := net.SplitHostPort(l.Addr().String())
		values = append(values, fmt.Sprint(port.ContainerPort), free)
		l.Close()
	}
	here := strings.NewReplacer(values...)
	cmd := exec.Command(os.Args[0])
	for _, arg := range c.Args {
		cmd.Args = append(cmd.Args, here.Replace(arg))
	}
	// The default port of the local door may be in use on this machine.
	cmd.Env = append(os.Environ(), runMain+"=1", "PEERLINK_LOCAL_LISTEN=none")
	for _, e := range c.Env {
		cmd.Env = append(cmd.Env, e.Name+"="+here.Replace(e.Value))
	}
	for _, link := range []struct{ from, variables string }{
		{s.Path(), "PEERLINK_DIR SWPT_NODEDATA_URL"},
		{s.cert, "PEERLINK_SERVER_CERT SWPT_SERVER_CERT"},
		{s.key, "PEERLINK_SERVER_KEY SWPT_SERVER_KEY"},
	} {
		i := slices.IndexFunc(cmd.Env, func(v string) bool {
			name, value, _ := strings.Cut(v, "=")
			return slices.Contains(strings.Fields(link.variables), name) && strings.Contains(value, root)
		})
		if i < 0 {
			t.Fatalf("none of %s has a path in a mounted volume: %q", link.variables, cmd.Env)
		}
		_, path, _ := strings.Cut(cmd.Env[i], "=")
		path = strings.TrimPrefix(path, "file://")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(path); err != nil { // a folder that was made above, if the path is the mount point itself
			t.Fatal(err)
		}
		if err := os.Symlink(link.from, path); err != nil {
			t.Fatal(err)
		}
	}
	p.running = &running{cmd, t, new(lockedBuffer), make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // see code
	}()
	t.Cleanup(func() { cmd.Process.Kill(); <-p.exited })
	return p
}

// probe performs a probe as the kubelet does.
func (p *pod) probe(probe probe) error {
	_, err := p.get(probe.HTTPGet.Port, probe.HTTPGet.Path)
	return err
}

func (p *pod) get(port, path string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second}
	r, err := client.Get("http://" + p.ports[port] + path)
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, p.output)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, r.Status, body)
	}
	return string(body), err
}
