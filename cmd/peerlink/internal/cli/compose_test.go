package cli

import (
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"peerlink/link"
)

// composeService holds the fields of a Compose service that the tests read.
type composeService struct {
	Image       string
	Command     string
	Environment []string
	Volumes     []string
	Ports       []string
	DependsOn   []string `yaml:"depends_on"`
	Profiles    []string
	Healthcheck struct{ Test []string }
}

// composeStack describes the Compose stack of one of the reference's agents.
type composeStack struct {
	prefix string // of the queue names
	peers  []string
}

var composeStacks = map[string]composeStack{
	"accounts":  {"aa", []string{"ca7d3c6f7fc25937c0da7da397502259", "1ec0f50644f3eac2f3fa6cdaac18f5f8"}},
	"creditors": {"ca", []string{"1234abcd"}},
	"debtors":   {"da", []string{"1234abcd"}},
}

// services returns the stack's services that have swpt_stomp's image: a server, and
// for each peer a service that configures a queue and one that sends the queue's
// messages.
func (s composeStack) services(name string) map[string]composeService {
	common := composeService{
		Environment: []string{
			"PROTOCOL_BROKER_URL=amqp://guest:guest@rabbitmq:5672", "SWPT_SERVER_CERT=/etc/swpt/server.crt", "SWPT_SERVER_KEY=/secrets/swpt-server.key",
			"SWPT_NODEDATA_URL=file:///var/lib/swpt-nodedata", "APP_LOG_LEVEL=info", "APP_LOG_FORMAT=text", "SUBSTITUTE_LOCALHOST_IN_VARS=PROTOCOL_BROKER_URL",
		},
		Volumes: []string{
			"./docker/nodedata/server.crt:/etc/swpt/server.crt", "./docker/nodedata/server.key:/secrets/swpt-server.key", "./docker/nodedata:/var/lib/swpt-nodedata",
		},
		DependsOn: []string{"rabbitmq"},
	}
	server := common
	server.Command, server.Ports = "swpt-server", []string{"$SWPT_SERVER_LOCAL_PORT:1234"}
	server.Environment = append([]string{"SWPT_SERVER_PORT=1234"}, common.Environment...)
	services := map[string]composeService{name + "-stomp-server": server}
	for _, peer := range s.peers {
		config, client := common, common
		config.Command = "configure-queue " + peer + " " + s.queue(peer)
		client.Command = "swpt-client " + peer + " " + s.queue(peer)
		services[name+"-peer-"+peer+"-config"], services[name+"-peer-"+peer] = config, client
	}
	return services
}

func (s composeStack) queue(peer string) string { return s.prefix + "." + peer }

// readCompose reads a Compose file, and checks it against the schema of Compose
// files.
func readCompose(t *testing.T, name string) map[string]composeService {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "deploy", "compose", name))
	if err != nil {
		t.Fatal(err)
	}
	expanded := os.Expand(string(text), func(v string) string {
		switch v {
		case "PEERLINK_IMAGE:-peerlink":
			return "peerlink"
		case "SWPT_SERVER_LOCAL_PORT":
			return "1234"
		}
		t.Errorf("%s: unknown variable %q", name, v)
		return ""
	})
	var anything map[string]any
	if err := yaml.Unmarshal([]byte(expanded), &anything); err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(anything); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	var file struct{ Services map[string]composeService }
	if err := yaml.Unmarshal([]byte(expanded), &file); err != nil {
		t.Fatal(err)
	}
	return file.Services
}

// The Compose files that change only the image name exactly the services that have
// swpt_stomp's image, and this program accepts the commands of these services and
// all variables of their environment.
func TestComposeImage(t *testing.T) {
	for name, stack := range composeStacks {
		t.Run(name, func(t *testing.T) {
			reference := stack.services(name)
			changed := readCompose(t, name+".yml")
			if got, want := slices.Sorted(maps.Keys(changed)), slices.Sorted(maps.Keys(reference)); !slices.Equal(got, want) {
				t.Errorf("services %v, want %v", got, want)
			}
			for service, s := range reference {
				if changed[service].Image != "peerlink" || changed[service].Command != "" || changed[service].Environment != nil {
					t.Errorf("%s: got %+v, want a service of which only the image is changed", service, changed[service])
				}
				t.Run(service, func(t *testing.T) { checkComposeService(t, s) })
			}
		})
	}
}

// In the stacks that run "serve", the services that it replaces are not started, the
// queues keep their names, and this program has the commands, flags and variables
// that the Compose files use.
func TestComposeServe(t *testing.T) {
	for name, stack := range composeStacks {
		t.Run(name, func(t *testing.T) {
			services := readCompose(t, name+"-serve.yml")
			for service := range stack.services(name) {
				if len(services[service].Profiles) != 1 {
					t.Errorf("service %s has no profile: it is started by default", service)
				}
			}
			serve := services[name+"-peerlink"]
			if len(services) != len(stack.services(name))+1 || serve.Command != serveName || serve.Image != "peerlink" {
				t.Fatalf("services %v", services)
			}
			checkComposeService(t, serve)
			pattern, err := link.ParseQueuePattern(composeVariables(serve)["PEERLINK_QUEUE_PATTERN"])
			if err != nil {
				t.Fatal(err)
			}
			for _, peer := range stack.peers {
				if got := pattern.Name(peer, 0); got != stack.queue(peer) {
					t.Errorf("the queue is called %s, want %s", got, stack.queue(peer))
				}
			}
			if len(serve.Healthcheck.Test) < 2 || serve.Healthcheck.Test[0] != "CMD" {
				t.Fatalf("health check %v", serve.Healthcheck.Test)
			}
			checkCommand(t, serve.Healthcheck.Test[2:])
			if key := "/dev/null:/var/lib/swpt-nodedata/private/root-ca.key:ro"; !slices.Contains(serve.Volumes, key) {
				t.Errorf("volumes %v: the root key is visible in the container, want %s among them", serve.Volumes, key)
			}
		})
	}
}

func composeVariables(s composeService) map[string]string {
	variables := make(map[string]string)
	for _, entry := range s.Environment {
		name, value, _ := strings.Cut(entry, "=")
		variables[name] = value
	}
	return variables
}

// checkComposeService checks a service's command and environment, and that every
// path in its environment is mounted.
func checkComposeService(t *testing.T, s composeService) {
	t.Helper()
	clearAppVariables(t)
	variables := composeVariables(s)
	for name, value := range variables {
		t.Setenv(name, value)
	}
	flags := checkCommand(t, strings.Fields(s.Command))
	known := []string{substituteVariable, "SWPT_NODEDATA_URL", "SWPT_SERVER_CERT", "SWPT_SERVER_KEY"} // configure-queue has them too
	flags.VisitAll(func(f *pflag.Flag) { known = append(known, f.Annotations[environment]...) })
	for name := range variables {
		if !slices.Contains(known, name) {
			t.Errorf("%s does not read the variable %s", s.Command, name)
		}
	}
	mounted := make(map[string]bool)
	for _, v := range s.Volumes {
		mounted[strings.Split(v, ":")[1]] = true
	}
	for _, name := range []string{"SWPT_SERVER_CERT", "SWPT_SERVER_KEY", "SWPT_NODEDATA_URL"} {
		if p := strings.TrimPrefix(variables[name], "file://"); !path.IsAbs(p) || !mounted[p] {
			t.Errorf("%s is %q, which is not mounted", name, variables[name])
		}
	}
	for _, p := range s.Ports {
		if _, inside, _ := strings.Cut(p, ":"); inside != variables["SWPT_SERVER_PORT"] {
			t.Errorf("port %s is published, and the server listens on %s", inside, variables["SWPT_SERVER_PORT"])
		}
	}
	broker, err := url.Parse(variables["PROTOCOL_BROKER_URL"])
	if err != nil || !slices.Contains(s.DependsOn, broker.Hostname()) {
		t.Errorf("the service does not depend on the broker %v: %v", broker, err)
	}
}

// checkCommand checks that this program has the command, and accepts its arguments
// and the environment. It returns the command's flags.
func checkCommand(t *testing.T, args []string) *pflag.FlagSet {
	t.Helper()
	c, rest, err := (&app{}).root().Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	if err := readEnvironment(c.Flags()); err != nil {
		t.Errorf("%v: %v", args, err)
	}
	return c.Flags()
}
