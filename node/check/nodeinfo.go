package check

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
)

// checkNodeinfo checks the node's own nodeinfo, which is published to its peers.
func (c *checker) checkNodeinfo() {
	c.checkStompTOML("nodeinfo", Problem, "peers need it to find this node's servers, and no info-bundle can be made without it")
	if _, err := node.ReadRevokedKeys(c.path("nodeinfo")); err != nil {
		c.problem("nodeinfo/revoked-keys.txt", RuleRevokedKeys, "%v; no info-bundle can be made before it is corrected", err)
	}
	c.checkNames("nodeinfo", "no info-bundle can be made before it is renamed, or moved out of the folder")
	c.checkUpdatedAt("nodeinfo", "peers will ignore new info-bundles until then; if the clock is right, remove the file")
	c.checkPublished("db/info-bundle.zip")
}

// checkPeerRevoked checks the lists of the server keys that a peer has revoked.
func (c *checker) checkPeerRevoked(folder string) {
	file := folder + "/revoked-keys.txt"
	switch n, err := node.NotRemembered(c.path(folder)); {
	case err != nil:
		c.problem(file, RuleRevokedKeys, "the keys that the peer has revoked can not be read (%v): no link with it begins; put the file right, or sign its newest info-bundle", reason(err))
	case n > 0:
		c.warning(file, RuleRevokedKeys, "has no space for %d of the keys that the peer has revoked: these are refused only as long as its newest info-bundle lists them", n)
	}
}

// maxNames is the maximum number of files and folders of a nodeinfo folder that are
// checked. An info-bundle could make earlier versions unpack any number of folders.
const maxNames = 1000

// checkNames checks that a nodeinfo folder has only files with harmless names.
// Earlier versions also unpacked files that make a folder a Git repository, whose
// configuration can make Git run commands.
func (c *checker) checkNames(folder, remedy string) {
	var files []infobundle.File
	repository := false
	seen := 0
	err := fs.WalkDir(os.DirFS(c.path(folder)), ".", func(name string, e fs.DirEntry, err error) error {
		if seen++; err != nil || seen > maxNames {
			return errors.Join(err, fs.SkipAll)
		}
		repository = repository || strings.EqualFold(e.Name(), "HEAD") || strings.EqualFold(e.Name(), ".git")
		switch {
		case name != "." && infobundle.Excluded(e.Name()):
			if e.IsDir() {
				return fs.SkipDir
			}
		case !e.IsDir():
			files = append(files, infobundle.File{Name: name})
		}
		return nil
	})
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.SkipAll):
		c.problem(folder, RuleUnreadable, "can not be read: %v", reason(err))
	case repository:
		c.problem(folder, RuleNodeinfoName, "may be a git repository: git would run the commands that its configuration names, so do not use git there; %s", remedy)
	case seen > maxNames:
		c.problem(folder, RuleNodeinfoName, "has more than %d files and folders: %s", maxNames, remedy)
	default:
		if err := infobundle.CheckFiles(files); err != nil {
			c.problem(folder, RuleNodeinfoName, "%v: %s", err, remedy)
		}
	}
}

// checkPublished checks the info-bundle that peers fetch, if there is one.
func (c *checker) checkPublished(file string) {
	data, ok := c.readUpTo(file, infobundle.MaxSize)
	if !ok {
		return
	}
	b, err := infobundle.Read(data, c.now)
	if err != nil {
		c.warning(file, RulePublished, "peers will refuse this info-bundle: %v; make a new one", err)
	} else if c.rootValid && !sameKey(b.Root, c.root) {
		c.warning(file, RulePublished, "is the info-bundle of %v with another root key, and peers will refuse it; make a new one", b.Identity)
	} else if data, ok := c.text("nodeinfo/"+infobundle.StompTOML, RuleStompTOML); ok {
		if own, err := node.ParseStompTOML(data, b.Identity.ID); err == nil && !own.IsIn(b) {
			c.warning(file, RulePublished, "has other content than nodeinfo/%s, which peers get in this way only; make a new one", infobundle.StompTOML)
		}
		c.checkRevocationPublished(file, b)
	}
}

// checkRevocationPublished checks that the published info-bundle has all revoked server keys.
func (c *checker) checkRevocationPublished(file string, b *infobundle.Bundle) {
	revoked, _ := node.ReadRevokedKeys(c.path("nodeinfo"))
	published := node.RevokedIn(b)
	for key := range revoked {
		if _, ok := published[key]; !ok {
			c.warning(file, RulePublished, "does not have all keys of nodeinfo/revoked-keys.txt, so that peers still accept a server key that is revoked; make a new one (\"peerlink bundle create\")")
			return
		}
	}
}

// checkStompTOML checks the stomp.toml in a nodeinfo folder, with findings of the given severity.
// use says what the file is needed for.
func (c *checker) checkStompTOML(folder string, severity Severity, use string) {
	file := folder + "/" + infobundle.StompTOML
	f := Finding{Severity: severity, Rule: RuleStompTOML, Subject: file}
	data, ok := c.text(file, RuleStompTOML)
	if !ok {
		if c.exists(file) {
			return // there is a finding that the file can not be read
		}
		f.Text = "is missing: " + use
	} else if stomp, err := node.ParseStompTOML(data, c.self.ID); err != nil {
		f.Text = strings.TrimPrefix(err.Error(), infobundle.StompTOML+": ") + ": " + use
	} else if err := stomp.BundleURLsErr; err != nil {
		f.Severity = min(f.Severity, Warning)
		f.Text = strings.TrimPrefix(err.Error(), infobundle.StompTOML+": ")
	} else {
		return
	}
	c.add(f)
}

// checkUpdatedAt checks the date in updated-at.txt. Newer and older info-bundles are
// distinguished by comparing these dates as text. future is the end of the finding for a date in
// the future: what does not work until then, and the remedy.
func (c *checker) checkUpdatedAt(folder, future string) {
	file := folder + "/" + infobundle.UpdatedAt
	data, ok := c.text(file, RuleUpdatedAt)
	if !ok {
		return // the file does not exist before the first info-bundle
	}
	date := strings.TrimSpace(string(data))
	if _, err := infobundle.ParseDate(date); err != nil {
		c.note(file, RuleUpdatedAt, "holds %q: expected a date, for example %s; the next info-bundle replaces it", firstLine(date), c.now.UTC().Format(time.DateOnly))
	} else if infobundle.CheckDate(date, c.now) != nil {
		c.warning(file, RuleUpdatedAt, "holds %s, which is in the future: %s", date, future)
	}
}
