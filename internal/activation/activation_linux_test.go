package activation

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// runTake is the environment variable that, if set, makes the test binary print what Take returns.
const runTake = "ACTIVATION_TEST_TAKE"

func TestMain(m *testing.M) {
	if os.Getenv(runTake) == "" {
		os.Exit(m.Run())
	}
	sockets, err := Take("links", "admin")
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(0)
	}
	for _, name := range []string{"links", "admin"} {
		for _, l := range sockets[name] {
			c, err := l.Accept()
			if err != nil {
				fmt.Println("accept:", err)
				os.Exit(1)
			}
			c.Write([]byte(name))
			c.Close()
		}
	}
	out, _ := exec.Command("sh", "-c", "env | grep ^LISTEN_; [ ! -e /proc/$$/fd/3 ] || echo inherited").Output()
	fmt.Printf("%d sockets\n%s", len(sockets["links"])+len(sockets["admin"]), out)
	os.Exit(0)
}

// take runs Take in another process to which the files are passed, with these variables. In them, PID is the ID of
// that process.
func take(t *testing.T, files []*os.File, variables ...string) string {
	t.Helper()
	script := ""
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		script += fmt.Sprintf("export %s=\"%s\"; ", name, strings.ReplaceAll(value, "PID", "$$"))
	}
	c := exec.Command("sh", "-c", script+`exec "$0"`, os.Args[0])
	c.Env = append(os.Environ(), runTake+"=1", "LISTEN_PIDFDID=1")
	c.ExtraFiles = files
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func tcp(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fileOf(t, l.(*net.TCPListener)), l.Addr().String()
}

func fileOf(t *testing.T, socket interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := socket.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Sockets are taken over by their names, with the connections that wait in them, and child processes see neither the
// variables nor the sockets.
func TestTake(t *testing.T) {
	links, where := tcp(t)
	page, pageWhere := tcp(t)
	var waiting []net.Conn
	for _, address := range []string{where, pageWhere} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		waiting = append(waiting, c)
	}
	if got := take(t, []*os.File{page, links}, "LISTEN_PID=PID", "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:unknown"); got != "2 sockets\n" {
		t.Errorf("got %q", got)
	}
	for i, want := range []string{"links", "admin"} {
		if got, err := io.ReadAll(waiting[i]); string(got) != want {
			t.Errorf("the connection to %s was served by %q (%v)", want, got, err)
		}
	}
}

// Variables that are wrong, or meant for another process, and file descriptors that are not those of listening TCP
// sockets, are refused with the reason, and nothing is done to such descriptors.
func TestTakeHostile(t *testing.T) {
	good, where := tcp(t)
	connected, err := net.Dial("tcp", where)
	if err != nil {
		t.Fatal(err)
	}
	defer connected.Close()
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	dir, err := os.MkdirTemp("", "activation") // paths of Unix sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	unix, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, test := range []struct {
		name      string
		file      *os.File
		variables []string
		want      string
	}{
		{"no variables", good, nil, "0 sockets\n"},
		{"for another process", good, []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, "0 sockets\n"},
		{"not a number", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=one"}, `LISTEN_FDS is "one": expected`},
		{"none", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=0"}, "expected the number"},
		{"negative", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=-1"}, "expected the number"},
		{"too many", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=2147483647"}, "from 1 to 16"},
		{"more than were passed", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=16"}, "socket 2 of 16"},
		{"fewer names", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=2", "LISTEN_FDNAMES=links"}, "a name for each socket"},
		{"unknown name", good, []string{"LISTEN_PID=PID", "LISTEN_FDS=1", "LISTEN_FDNAMES=peerlink.socket"}, `"peerlink.socket": expected links, admin; set FileDescriptorName=`},
		{"a file", null, []string{"LISTEN_PID=PID", "LISTEN_FDS=1"}, "not a socket"},
		{"a connection", fileOf(t, connected.(*net.TCPConn)), []string{"LISTEN_PID=PID", "LISTEN_FDS=1"}, "Accept=no"},
		{"UDP", fileOf(t, udp.(*net.UDPConn)), []string{"LISTEN_PID=PID", "LISTEN_FDS=1"}, "not a TCP socket"},
		{"Unix", fileOf(t, unix.(*net.UnixListener)), []string{"LISTEN_PID=PID", "LISTEN_FDS=1"}, "not a TCP socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, refused := take(t, []*os.File{test.file}, test.variables...), slices.Contains(test.variables, "LISTEN_PID=PID")
			if !refused {
				test.want += "inherited\n" // what was not taken is not touched
			}
			if refused && !(strings.HasPrefix(got, "error: ") && strings.Contains(got, test.want)) || !refused && got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
