package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"peerlink/cmd/peerlink/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	o := demo.Options{}
	var keep string
	var asJSON bool
	c := &cobra.Command{
		Use:   "demo",
		Short: "See it at work: three nodes on this machine exchange messages",
		Long: `Makes an accounting authority, a creditors agent and a debtors agent in a fresh
folder, with the same commands that you would use; peers them, starts a real
"peerlink serve" for each on 127.0.0.1, and lets small applications configure
accounts, issue currency and make transfers. In the middle of it the accounting
authority is killed and comes back on another port. Nothing may be lost.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Messages < 20 || o.Messages > 1_000_000 {
				return usagef("--messages %d: expected 20 to 1000000", o.Messages)
			}
			return a.demo(cmd.Context(), o, keep, asJSON)
		},
	}
	c.Flags().IntVar(&o.Messages, "messages", 20_000, "about how many messages to exchange")
	c.Flags().StringVar(&keep, "keep", "", "make everything in `DIR` and leave it there")
	c.Flags().BoolVar(&asJSON, "json", false, "print the summary as JSON")
	return c
}

func (a *app) demo(ctx context.Context, o demo.Options, keep string, asJSON bool) error {
	var err error
	if o.Binary, err = os.Executable(); err != nil {
		return err
	}
	if o.Dir, err = demoDir(keep); err != nil {
		return err
	}
	if keep == "" {
		defer os.RemoveAll(o.Dir)
	}
	p := a.startProgress("Starting")
	o.Step = func(text string) {
		p.stop()
		a.printMessage("• %s", text)
		p = a.startProgress("  Working")
	}
	o.Progress = func(done, total int) { p.set(done, total) }
	res, err := demo.Run(ctx, o)
	p.stop()
	if err != nil {
		return err
	}
	if asJSON {
		err = a.json(res)
	} else {
		a.showDemo(res)
	}
	if keep != "" {
		a.printMessage("Everything is in %s.", o.Dir)
	}
	if err == nil && res.Lost > 0 {
		err = fmt.Errorf("%d messages were lost", res.Lost)
	}
	return err
}

// demoDir creates the folder of the demo: a temporary folder, or the given one, which is kept.
func demoDir(keep string) (string, error) {
	if keep == "" {
		return os.MkdirTemp("", "peerlink-demo-")
	}
	dir, err := filepath.Abs(keep)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir, os.MkdirAll(dir, 0o700)
	case err == nil && len(entries) > 0:
		err = fmt.Errorf("%s is not empty: choose a fresh folder", dir)
	}
	return dir, err
}

func (a *app) showDemo(r *demo.Result) {
	links := &grid{columns: []column{
		{title: "LINK"}, {title: "SENT", number: true}, {title: "DELIVERED", number: true}, {title: "REPEATED", number: true},
		{title: "LOST", number: true}, {title: "CONNECTIONS", number: true},
	}}
	for _, l := range r.Links {
		links.add(l.From+" → "+l.To, fmt.Sprint(l.Sent), fmt.Sprint(l.Delivered), fmt.Sprint(l.Repeated), fmt.Sprint(l.Lost), fmt.Sprint(l.Dials))
	}
	links.add("all", fmt.Sprint(r.Sent), fmt.Sprint(r.Delivered), fmt.Sprint(r.Repeated), fmt.Sprint(r.Lost), "")
	a.print("")
	a.showGrid(links)
	a.print("\nThe chains of certificates that each side has verified:")
	for _, l := range r.Links {
		a.print("\n%s → %s", l.From, l.To)
		a.print("  %s has verified  %s", l.From, l.SenderVerified)
		a.print("  %s has verified  %s", l.To, l.ReceiverVerified)
	}
	a.print("\n%d messages in %.1f s, %.0f a second, every one stored on both sides. The killed service\nwas down for %.1f s. Lost: %d.",
		r.Delivered, r.Elapsed.Seconds(), float64(r.Delivered)/r.Elapsed.Seconds(), r.Outage.Seconds(), r.Lost)
}
