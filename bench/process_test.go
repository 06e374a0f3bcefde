package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"peerlink/link/linktest"
)

// build builds the peerlink binary, and returns its path.
func build(b *testing.B) string {
	b.Helper()
	binary := filepath.Join(b.TempDir(), "peerlink")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	c := exec.Command("go", "build", "-o", binary, "peerlink/cmd/peerlink")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	return binary
}

// process is a "peerlink serve" process.
type process struct {
	b   *testing.B
	cmd *exec.Cmd
	log bytes.Buffer
}

// serve starts a "peerlink serve" process for the node n, with the RabbitMQ nodes at the
// given URLs.
func serve(b *testing.B, binary string, n *linktest.Node, listen string, urls []string, queueType string) *process {
	b.Helper()
	p := &process{b: b, cmd: exec.Command(binary, "-C", n.Path(), "serve", "--listen", listen, "--server-cert", n.CertFile, "--server-key", n.KeyFile)}
	if queueType != "" {
		p.cmd.Args = append(p.cmd.Args, "--queue-type", queueType)
	}
	p.cmd.Env = append(os.Environ(), "PEERLINK_BROKER="+strings.Join(urls, ","))
	p.cmd.Stderr = &p.log
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			p.cmd.Process.Kill()
			p.cmd.Wait()
			b.Logf("log of the service:\n%s", p.log.String())
		}
	})
	return p
}

// stop ends the service with an interrupt signal. It returns the processor time that the
// service has used, in microseconds.
func (p *process) stop() float64 {
	p.b.Helper()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.b.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		p.b.Fatalf("the service has ended with %v\n%s", err, p.log.String())
	}
	return float64((p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()).Microseconds())
}
