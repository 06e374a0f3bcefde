package infobundle

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"peerlink/node/nodetype"
)

// A name of a nodeinfo file that has a special meaning for Git, Windows or a shell,
// or that is the name of another file on some file system, is refused when a bundle
// is made and when a bundle is read. The error quotes the name.
func TestNames(t *testing.T) {
	a := newAuthor(t, nodetype.CreditorsAgent)
	toml := File{StompTOML, []byte("x")}
	for _, names := range []string{
		"HEAD", "head", "x/HEAD", "HEAD/x",
		".git/config", "x/.git", "git~1", "GIT~1", ".gitattributes", ".envrc", "x/.hidden", "_darcs", "-rf",
		"con", "NUL", "aux.txt", "x/Com1.tar.gz", "LPT0", "COM\u00b9", "CONIN$",
		"x.", "x ", "x./y", "..", "../x", "x/..", "./x", "/x", "x//y", "x/", "a b", "a\tb", "a\\b", "a:b", "a*", "a?", "a%b", "a$b", "a'b", "#a#",
		"desktop.ini", "Desktop.INI", "x/y.lnk", "a.url", "a.scf", "a.Library-MS", "autorun.inf",
		"git.exe", "x/Git.CMD", "json.py", "readme.hta", "x.desktop", "run.sh", "x.tar.PS1",
		"Makefile", "GNUmakefile", "justfile", "Taskfile.yml", "CMakeLists.txt", "meson.build", "SConstruct", "BUILD", "WORKSPACE", "Rakefile",
		"Gemfile", "package.json", "pyproject.toml", "Cargo.toml", "flake.nix", "x/Default.nix", "build.gradle", "x.vbproj", "x.SLN",
		"Vagrantfile", "DOCKERFILE", "docker-compose.yml", "kustomization.yaml", "kustomization.yml", "Kustomization", "x.settingcontent-ms",
		"x.diagcab", "x.xll", "x.iqy", "x.slk", "x.rdp", "x.job", "x.appx", "x.gadget", "x.code-workspace", "x.el", "x.elc",
		"a/b/c", "a/b/c/d", "caf\u00e9", "\u212a", "ſtomp.toml", "STOMP.TOML", "Updated-At.txt",
		"", strings.Repeat("x", maxName+1),
		"a A", "a/x A/y", "a/x a/X", "a a/x", "a A/x",
	} {
		files := []File{toml}
		entries := []entry{{StompTOML, []byte("x"), 0}}
		list := strings.Split(names, " ")
		if names == "x " || names == "a b" {
			list = []string{names}
		}
		for _, name := range list {
			files = append(files, File{name, nil})
			entries = append(entries, entry{name, nil, 0})
		}
		last := list[len(list)-1]
		_, _, err := Sign(files, a.key)
		if err == nil || len(last) < maxName && !strings.Contains(err.Error(), strconv.Quote(last)) && !strings.Contains(err.Error(), "folder") {
			t.Errorf("making a bundle with %q: %v", names, err)
		}
		if last == "x/" {
			continue // a folder, in a zip file
		}
		if _, err := Read(a.signed(t, zipOf(t, entries...)), now); !errors.Is(err, ErrInvalid) {
			t.Errorf("reading a bundle with %q: %v", names, err)
		}
	}
	for _, name := range []string{"README.md", "about/index.html", "a..b", "logo-2.png", "stomp.toml~", "headers", "x/HEAD.txt", "console", "com10", "a_b", "1", "build/x", "package.txt", "compose", "model"} {
		if err := CheckFiles([]File{toml, {name, nil}, {"about/x", nil}}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}
