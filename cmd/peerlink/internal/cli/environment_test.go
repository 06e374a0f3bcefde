package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// Every setting of the service can be given in the environment, under the name
// that follows from the flag's, so that a unit file or a container needs no
// command line.
func TestEveryServeFlagHasItsVariable(t *testing.T) {
	c := (&app{}).serveCommand()
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "check" {
			return // no setting
		}
		want := "PEERLINK_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		if got := f.Annotations[environment]; !slices.Contains(got, want) {
			t.Errorf("--%s: variables %v, want %s among them", f.Name, got, want)
		}
		if !strings.Contains(f.Usage, want) {
			t.Errorf("--%s: the help does not name %s", f.Name, want)
		}
	})
}

// A flag takes precedence over the environment, and the first variable over the
// second. An empty variable counts as unset. The error for a value that cannot be
// parsed names the variable.
func TestReadEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name          string
		args          []string
		first, second string
		want, err     string
	}{
		{"nothing", nil, "", "", "1", ""},
		{"first", nil, "2", "3", "2", ""},
		{"second", nil, "", "3", "3", ""},
		{"flag", []string{"--n=4"}, "2", "3", "4", ""},
		{"not a number", nil, "two", "3", "", `PEERLINK_TEST_N is "two": expected a whole number`},
		{"not a number, and not needed", []string{"--n=4"}, "two", "", "4", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("PEERLINK_TEST_N", tt.first)
			t.Setenv("TEST_N", tt.second)
			flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
			flags.Int("n", 1, "a number")
			fromEnv(flags, "n", "PEERLINK_TEST_N", "TEST_N")
			if err := flags.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			err := readEnvironment(flags)
			if got := flags.Lookup("n").Value.String(); err == nil && got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

// The help never shows the values of environment variables, which may contain
// passwords.
func TestHelpHidesTheEnvironment(t *testing.T) {
	t.Setenv("PEERLINK_BROKER", "amqp://user:hidden@localhost/")
	out, err := os.CreateTemp(t.TempDir(), "help")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	a := &app{stdin: os.Stdin, stdout: out, stderr: out}
	if code := a.run(t.Context(), []string{"serve", "--help"}); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "PEERLINK_BROKER") || strings.Contains(string(text), "hidden") {
		t.Errorf("the help must name PEERLINK_BROKER and must not show its value:\n%s", text)
	}
}

// The address on which peers connect can be a host and a port, or only a port.
func TestPeerAddress(t *testing.T) {
	for in, want := range map[string]string{
		"1234": ":1234", ":1234": ":1234", "127.0.0.1:0": "127.0.0.1:0", "[::1]:1234": "[::1]:1234", "localhost:1234": "localhost:1234",
		"": "", "localhost": "", "65536": "", ":65536": "", ":http": "", "::1": "", "-1": "",
		"300.1.1.1:1234": "", "a b:1234": "", "[fe80::1%lo]:1234": "[fe80::1%lo]:1234", "node-1.example.com:1234": "node-1.example.com:1234",
	} {
		var got peerAddress
		if err := got.Set(in); string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}
