package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/publish"
)

// noPublish is the value of --publish with which the info-bundle is not served.
const noPublish = "none"

// publishSettings are the settings for serving the node's newest info-bundle.
type publishSettings struct {
	listen, file string
}

func publishFlags(c *cobra.Command, f *publishSettings) {
	c.Flags().StringVar(&f.listen, "publish", noPublish, "`ADDRESS` where the node's newest info-bundle and the peer certificates that it has issued are served to anybody by plain HTTP, as "+publish.Path+" and /peers/<node ID>.crt")
	fromEnv(c.Flags(), "publish", "PEERLINK_PUBLISH")
	c.Flags().StringVar(&f.file, "publish-file", "", "the info-bundle `FILE`; by default the newest that was made in the node's directory")
	fromEnv(c.Flags(), "publish-file", "PEERLINK_PUBLISH_FILE")
}

// start starts to serve the info-bundle, until stop is called or ctx is done, unless --publish is
// noPublish. open is a listener at its address that is open already, or nil. stop waits until the server has ended.
func (f *publishSettings) start(ctx context.Context, d *node.Dir, open net.Listener, log *slog.Logger) (stop func(), err error) {
	if f.listen == noPublish {
		if f.file != "" {
			return nil, usagef("--publish-file is for --publish, which is not given")
		}
		return func() {}, nil
	}
	l := open
	if l == nil {
		if l, err = net.Listen("tcp", f.listen); err != nil {
			return nil, fmt.Errorf("listen for those who fetch the info-bundle: %w", err)
		}
	}
	file := f.file
	if file == "" {
		file = d.PublishedBundle()
	}
	log.Info("the info-bundle is served to anybody", "listen", l.Addr().String(), "path", publish.Path)
	s := publish.New(publish.Config{File: file, Root: d.Root(), Dir: d, Log: log})
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.Serve(ctx, l); err != nil {
			// The failure is only logged, because the links are more important.
			log.Error("the info-bundle is not served any more", "err", err)
		}
	}()
	return func() { cancel(); <-done }, nil
}
