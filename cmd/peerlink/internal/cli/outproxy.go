package cli

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"peerlink/internal/guard"
	"peerlink/internal/outproxy"
)

// outboundProxy are the flags for the proxy through which peers are reached.
type outboundProxy struct {
	url          proxyURL
	passwordFile string
}

// outboundProxyFlags adds the flags for the proxy through which peers are reached.
func outboundProxyFlags(c *cobra.Command, f *outboundProxy) {
	c.Flags().Var(&f.url, "proxy", "`URL` of the proxy through which peers are connected to, and which resolves their names: socks5://host:port or http://host:port (CONNECT), with user@ before the host if the proxy asks for a user name")
	fromEnv(c.Flags(), "proxy", "PEERLINK_PROXY")
	c.Flags().StringVar(&f.passwordFile, "proxy-password-file", "", "`FILE` whose first line is the password for the user of --proxy")
	fromEnv(c.Flags(), "proxy-password-file", "PEERLINK_PROXY_PASSWORD_FILE")
}

// proxyURL is the value of a flag for the URL of a proxy, which may have a password. Set does not check the
// URL, because pflag shows the value in an error of Set; [outboundProxy.config] checks it.
type proxyURL string

// Set sets the URL. It never fails.
func (u *proxyURL) Set(s string) error {
	*u = proxyURL(s)
	return nil
}

// String returns the URL without user name and password.
func (u *proxyURL) String() string {
	if *u == "" {
		return ""
	}
	p, err := outproxy.Parse(string(*u))
	if err != nil {
		return "(not the URL of a proxy)"
	}
	return p.String()
}

// Type returns the type shown in the help.
func (*proxyURL) Type() string { return "string" }

// config returns the proxy that the flags configure, or nil if they configure none. It calls
// warn if other users can read the password file.
func (f *outboundProxy) config(ctx context.Context, warn func(text string)) (*outproxy.Proxy, error) {
	if f.url == "" {
		if f.passwordFile != "" {
			return nil, usagef("--proxy-password-file is for --proxy, which is not given")
		}
		return nil, nil
	}
	p, err := outproxy.Parse(string(f.url))
	if err != nil {
		return nil, usagef("--proxy: %v", err)
	}
	if f.passwordFile == "" {
		return p, nil
	}
	warning, err := guard.CheckSecretFile(f.passwordFile)
	if err != nil {
		return nil, fmt.Errorf("--proxy-password-file: %w", err)
	}
	if warning != "" {
		warn("the file of --proxy-password-file " + warning)
	}
	data, err := readText(ctx, f.passwordFile, maxInputFile)
	if err != nil {
		return nil, fmt.Errorf("--proxy-password-file: %w", err)
	}
	password, _, _ := strings.Cut(string(data), "\n")
	password = strings.TrimSuffix(password, "\r")
	if password == "" || strings.ContainsFunc(password, unicode.IsControl) {
		return nil, fmt.Errorf("--proxy-password-file: the first line of %s is empty or has control characters: expected the password", f.passwordFile)
	}
	if p, err = p.WithPassword(password); err != nil {
		return nil, usagef("--proxy and --proxy-password-file: %v", err)
	}
	return p, nil
}
