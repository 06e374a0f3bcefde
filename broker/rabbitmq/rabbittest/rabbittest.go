// Package rabbittest runs a private RabbitMQ for tests: a node of its own, on free ports,
// with all its files in a temporary folder. It can be killed, stopped and started again.
//
// A test binary has one node, started by the first test that calls Get:
//
//	func TestMain(m *testing.M) { os.Exit(rabbittest.Run(m)) }
//
//	func TestSomething(t *testing.T) {
//		url := rabbittest.Get(t).URL()
//
// Get skips the test if RabbitMQ is not installed.
//
// Environment variables select another RabbitMQ than the installed one, and configure it:
// RABBITMQ_ROOT is the root folder of a Debian system with RabbitMQ (made by debootstrap),
// in which it is run by chroot, as root; RABBITMQ_DEFAULT_QUEUE_TYPE is the type of queues
// that are declared without one.
package rabbittest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// ErrMissing is returned by [New] if RabbitMQ, or Erlang, is not installed.
var ErrMissing = errors.New("rabbitmq-server is not installed")

// startTime is how long RabbitMQ may take to start on a busy machine.
const startTime = 3 * time.Minute

// noBusyWaiting are arguments of the Erlang VM, whose idle schedulers spin otherwise, which takes
// time from tests.
const noBusyWaiting = "+sbwt none +sbwtdcpu none +sbwtdio none"

// Server is a RabbitMQ node. Its methods are not safe for concurrent use.
type Server struct {
	root     string // root folder of the system in which the node runs; "" for this one
	dir      string // folder of all the node's files
	programs string // folder of rabbitmq-server and rabbitmqctl, in the root
	port     int
	name     string // of the node
	env      []string
	process  *process // nil while it is not running
}

// New prepares a node, without starting it.
func New() (*Server, error) { return newServer(nil) }

// newServer prepares a node, which joins a cluster unless that is nil.
func newServer(cluster *Cluster) (*Server, error) {
	root := os.Getenv("RABBITMQ_ROOT")
	programs, err := findPrograms(root)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	tmp := ""
	if root != "" {
		tmp = filepath.Join(root, "tmp")
	}
	dir, err := os.MkdirTemp(tmp, "rabbittest")
	if err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nlog.console = false\nlog.file.level = warning\n", ports[0])
	if kind := os.Getenv("RABBITMQ_DEFAULT_QUEUE_TYPE"); kind != "" {
		conf += "default_queue_type = " + kind + "\n"
	}
	name := fmt.Sprintf("rabbittest-%d@localhost", ports[0])
	inside := strings.TrimPrefix(dir, root) // as seen by the node
	home, mapper := inside, ports[2]
	if cluster != nil {
		if len(cluster.Nodes) == 0 {
			cluster.home, cluster.mapperPort = home, mapper
		}
		home, mapper = cluster.home, cluster.mapperPort
		conf += cluster.conf(name)
	}
	for name, text := range map[string]string{
		"rabbitmq.conf":   conf,
		"enabled_plugins": "[rabbitmq_random_exchange].\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	env := []string{
		"HOME=" + home, // folder of the Erlang cookie
		"PATH=" + os.Getenv("PATH"),
		"LC_ALL=C.UTF-8",
		"RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_MNESIA_BASE=" + filepath.Join(inside, "mnesia"),
		"RABBITMQ_LOG_BASE=" + filepath.Join(inside, "log"),
		"RABBITMQ_PID_FILE=" + filepath.Join(inside, "pid"),
		"RABBITMQ_CONFIG_FILE=" + filepath.Join(inside, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(inside, "enabled_plugins"),
		"RABBITMQ_NODENAME=" + name,
		fmt.Sprintf("RABBITMQ_DIST_PORT=%d", ports[1]),
		// A port mapper that only this node, or its cluster, uses, and that ends with it.
		fmt.Sprintf("ERL_EPMD_PORT=%d", mapper),
		"ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=" + noBusyWaiting,
		"RABBITMQ_CTL_ERL_ARGS=+S 1:1 " + noBusyWaiting, // of rabbitmqctl, which has little to do
		// Makes the script exec the Erlang VM, instead of waiting for it.
		"detached=true",
	}
	if cluster != nil {
		env = append(env, "SHARED_MAPPER=yes")
	}
	return &Server{root: root, dir: dir, programs: programs, port: ports[0], name: name, env: env}, nil
}

// findPrograms returns the folder of RabbitMQ's own scripts. Debian's wrappers of the same
// names, which require a certain user, come first in the search path.
func findPrograms(root string) (string, error) {
	const dir = "/usr/lib/rabbitmq/bin"
	if root == "" && !isProgram("erl") {
		return "", ErrMissing // the scripts run Erlang
	}
	if isProgram(filepath.Join(root, dir, "rabbitmq-server")) {
		return dir, nil
	}
	if root != "" {
		return "", fmt.Errorf("RABBITMQ_ROOT=%s: there is no %s/rabbitmq-server in it", root, dir)
	}
	path, err := exec.LookPath("rabbitmq-server")
	if err != nil {
		return "", ErrMissing
	}
	return filepath.Dir(path), nil
}

func isProgram(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
}

// freePorts finds ports below the range of ephemeral ports: an outgoing connection could
// use such a port while the node is down, or even connect to itself there.
func freePorts(n int) ([]int, error) {
	var ports []int
	for tries := 0; len(ports) < n; tries++ {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			if tries == 1000 {
				return nil, err
			}
			continue
		}
		defer l.Close()
		ports = append(ports, port)
	}
	return ports, nil
}

// Name returns the name of the Erlang node.
func (s *Server) Name() string { return s.name }

// URL returns the URL for a user with all permissions.
func (s *Server) URL() string { return s.URLFor("guest:guest") }

// URLFor returns the URL for a user, "name:password".
func (s *Server) URLFor(user string) string {
	return fmt.Sprintf("amqp://%s@127.0.0.1:%d", user, s.port)
}

// Start starts the node, and returns when clients can connect.
func (s *Server) Start() error {
	output, err := os.OpenFile(filepath.Join(s.dir, "output"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	if s.process, err = startProcess(s.inRoot("/bin/sh"), filepath.Join(s.programs, "rabbitmq-server"), s.env, output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		conn, err := amqp.Dial(s.URL())
		if err == nil {
			version, _ := conn.Properties["version"].(string)
			return errors.Join(conn.Close(), s.returnDeliveriesSoon(version))
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.process.ended:
			return fmt.Errorf("RabbitMQ has ended: %s", s.output())
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("RabbitMQ has not started within %v: %w: %s", startTime, err, s.output())
		}
	}
}

// returnDeliveriesSoon makes RabbitMQ 4.3 and newer return the deliveries of a lost consumer of a
// quorum queue after three seconds, as older ones do at once. The default is a minute, which is
// more than tests wait.
func (s *Server) returnDeliveriesSoon(version string) error {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil || major < 4 || major == 4 && minor < 3 {
		return nil
	}
	return s.Control("set_policy", "quick", ".*", `{"consumer-disconnected-timeout":3000}`, "--priority", "-1", "--apply-to", "quorum_queues")
}

// inRoot returns the command that runs a program in the node's root folder.
func (s *Server) inRoot(program string) []string {
	if s.root == "" {
		return []string{program}
	}
	return []string{"chroot", s.root, program}
}

// output returns the end of the node's output.
func (s *Server) output() []byte {
	text, err := os.ReadFile(filepath.Join(s.dir, "output"))
	if err != nil {
		return []byte(err.Error())
	}
	return bytes.TrimSpace(text[max(0, len(text)-2000):])
}

// AwaitSaved waits until the queues declared so far survive [Server.Kill]. RabbitMQ saves the
// registry of quorum queues half a second after its last change; a queue that is not in it begins
// anew, without its messages.
func (s *Server) AwaitSaved() {
	if os.Getenv("RABBITMQ_DEFAULT_QUEUE_TYPE") == "quorum" {
		time.Sleep(2 * time.Second)
	}
}

// Kill kills the node, as a power failure would.
func (s *Server) Kill() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Stop stops the node gracefully.
func (s *Server) Stop() error {
	defer s.Kill()
	return s.process.stop(startTime)
}

// Reset kills the node, and starts it without its data, like a container without its
// volume.
func (s *Server) Reset() error {
	s.Kill()
	if err := os.RemoveAll(filepath.Join(s.dir, "mnesia")); err != nil {
		return err
	}
	return s.Start()
}

// Pause stops the node's process, whose connections stay open. It returns when the node is
// stopped.
func (s *Server) Pause() error { return s.process.pause(startTime) }

// Resume is the inverse of Pause.
func (s *Server) Resume() error { return s.process.resume() }

// Control runs rabbitmqctl.
func (s *Server) Control(args ...string) error {
	_, err := s.ControlOutput(args...)
	return err
}

// ControlOutput runs rabbitmqctl and returns what it prints.
func (s *Server) ControlOutput(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	command := append(s.inRoot(filepath.Join(s.programs, "rabbitmqctl")), args...)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("rabbitmqctl %q: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Remove kills the node and removes all its files.
func (s *Server) Remove() error {
	s.Kill()
	return os.RemoveAll(s.dir)
}

// shared is the node of this test binary.
var shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Get returns the running node of this test binary. It skips the test if RabbitMQ is not
// installed.
func Get(tb testing.TB) *Server {
	tb.Helper()
	shared.once.Do(func() {
		if shared.server, shared.err = New(); shared.err == nil {
			shared.err = shared.server.Start()
		}
	})
	if errors.Is(shared.err, ErrMissing) {
		tb.Skipf("skipped: everything that needs RabbitMQ (%v)", shared.err)
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
	return shared.server
}

// Run runs the tests, then removes the node if there is one, and returns the exit code.
func Run(m *testing.M) int {
	code := m.Run()
	if s := shared.server; s != nil {
		if err := s.Remove(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	return code
}
