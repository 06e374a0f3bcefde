package cli

import (
	"log/slog"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
)

// referencePrefix is the prefix of the reference's variables that are not options.
const referencePrefix = "APP_"

// honoured are the reference's variables that have an effect on at least one command. There is no warning if a variable
// has no effect on the running command, because all commands share one environment.
var honoured = []string{
	"APP_LOG_LEVEL", "APP_LOG_FORMAT",
	maxConnectionsVariable, handshakeVariable, connectVariable, confirmVariable,
	// Used only in the reference's manifests and image.
	"APP_K8S_NAMESPACE", "APP_NAME", "APP_ROOT_DIR",
}

// replaced are the reference's variables that have no effect in peerlink. The values say, in the
// log, what applies instead.
var replaced = map[string]string{
	"APP_ASSOCIATED_LOGGERS":   "--log-level is for everything that is logged",
	"APP_STOMP_SERVER_BACKLOG": "the system's limit is used, net.core.somaxconn",
	"APP_PEERS_CHECK_SECONDS":  "the node's directory is looked at every second",
	"APP_PEERS_CACHE_SECONDS":  "the node's directory is looked at every second",
	"APP_MAX_CACHED_PEERS":     "all peers are kept in memory",
	"APP_FILE_READ_THREADS":    "there are as many threads as are needed",
}

// substituteVariable is a variable of the reference's entry point. It lists the names of variables
// that contain URLs. In these URLs the entry point replaces localhost with the host on which the
// container runs.
const substituteVariable = "SUBSTITUTE_LOCALHOST_IN_VARS"

// reportVariables logs the names of the reference's variables in the environment that have no
// effect, and of unknown APP_ variables. It does not log values, which may be secret. others are
// further variables without effect on the command, like those in replaced.
func reportVariables(log *slog.Logger, others map[string]string) {
	var unknown []string
	for _, v := range environmentNames() {
		instead, ineffective := replaced[v]
		if !ineffective {
			instead, ineffective = others[v]
		}
		switch {
		case ineffective:
			log.Info("an environment variable of the reference implementation has no effect here", "variable", v, "instead", instead)
		case strings.HasPrefix(v, referencePrefix) && !slices.Contains(honoured, v):
			unknown = append(unknown, v)
		}
	}
	if len(unknown) > 0 {
		log.Warn("environment variables have names like those of the reference implementation, which has none of these names: they have no effect", "variables", strings.Join(unknown, " "))
	}
	for _, v := range strings.Fields(os.Getenv(substituteVariable)) {
		if namesLocalhost(os.Getenv(v)) {
			log.Warn(substituteVariable+" has no effect here: localhost stays this container; name the host itself, for example as host.docker.internal", "variable", v)
		}
	}
}

// environmentNames returns the sorted names of the environment variables that are set and not empty.
func environmentNames() []string {
	names := make(map[string]bool)
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); value != "" {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// namesLocalhost reports whether value is a URL whose host is localhost.
func namesLocalhost(value string) bool {
	u, err := url.Parse(value)
	return err == nil && u.Hostname() == "localhost"
}
