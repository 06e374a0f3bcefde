package infobundle

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"peerlink/internal/excerpt"
)

// maxName is the most bytes of the name of a nodeinfo file, its folder included.
const maxName = 100

// A name, and the name of a folder: no leading dot, nothing that a shell or
// another system understands in its own way. A tilde may stand at the end: the
// reference packs what Emacs leaves behind.
var nameElement = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*~?$`)

// deviceName is what Windows takes for a device, with any extension.
var deviceName = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

// shellName is what the Windows Explorer acts on when a folder is looked at.
var shellName = regexp.MustCompile(`(?i)^(desktop\.ini|autorun\.inf|.*\.(lnk|url|scf|pif|library-ms|searchconnector-ms|theme))$`)

// programName is what a system or an interpreter runs by its name: Windows looks for a
// command in the current folder first, and Python for a module.
var programName = regexp.MustCompile(`(?i)\.(exe|com|bat|cmd|ps1|psm1|psd1|vbs|vbe|js|jse|mjs|cjs|wsf|wsh|ws|hta|msi|msp|msc|scr|cpl|dll|ocx|drv|sys|jar|py|pyw|pyc|pyd|pyo|pyz|pth|so|dylib|sh|bash|zsh|csh|ksh|fish|command|app|desktop|rb|pl|pm|php|lua|reg|inf|chm|hlp|appref-ms|application|settingcontent-ms|diagcab|xll|iqy|slk|rdp|job|appx|gadget|el|elc)$`)

// commandName is what a build tool or an editor, called in the folder, obeys.
var commandName = regexp.MustCompile(`(?i)^((gnu)?makefile|justfile|taskfile\.ya?ml|cmakelists\.txt|meson\.build|sconstruct|(build|workspace)(\.bazel)?|rakefile|gemfile|vagrantfile` +
	`|package\.json|pyproject\.toml|cargo\.toml|flake\.nix|default\.nix|shell\.nix|dockerfile|containerfile|(docker-)?compose(\.override)?\.ya?ml|kustomization(\.ya?ml)?` +
	`|.*\.(gradle|gradle\.kts|[a-z]+proj|sln|code-workspace))$`)

// renameIt follows what is wrong with a name in another node's bundle.
const renameIt = "; the bundle's owner has to rename or remove it, and to make a new bundle"

// checkName checks the name of an entry. A node's files are unpacked at its
// peers, where they must be nothing but files: operators keep them under git,
// which takes a folder with a file HEAD for a repository, and runs the commands
// that its configuration names.
func checkName(name string) error {
	elements := strings.Split(name, "/")
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("must have a name of 1 to %d bytes", maxName)
	case !fs.ValidPath(name) || name == ".":
		return errors.New("climbs out of its folder, or is not a plain relative path")
	case len(elements) > 2:
		return errors.New("lies too deep: expected a file, or a file in a folder")
	}
	for _, e := range elements {
		switch {
		case !nameElement.MatchString(e):
			return errors.New("has a name with other characters than letters, digits, \".\", \"_\" and \"-\", or one that does not begin with a letter or a digit")
		case strings.HasSuffix(e, "."):
			return errors.New("has a name that ends in a dot")
		case strings.EqualFold(e, "HEAD"):
			return errors.New("has the name by which git recognizes a repository, whose commands it would run")
		case deviceName.MatchString(e):
			return errors.New("has the name of a device of Windows")
		case shellName.MatchString(e):
			return errors.New("has a name by which Windows would act on it")
		case programName.MatchString(e):
			return errors.New("has the name of a program, which a command in its folder could run")
		}
	}
	if commandName.MatchString(elements[len(elements)-1]) {
		return errors.New("has a name that a command in its folder, such as make, would obey")
	}
	for _, known := range []string{StompTOML, UpdatedAt} {
		if name != known && strings.EqualFold(name, known) {
			return fmt.Errorf("must be named %s", known)
		}
	}
	return nil
}

// CheckFiles checks the number and the names of nodeinfo files: each may be a
// file, or a file in a folder, with a harmless name, and no two names may mean
// the same where upper and lower case letters are not told apart. The error
// names the file.
func CheckFiles(files []File) error {
	if len(files) > maxNodeinfoFile {
		return fmt.Errorf("more than %d files", maxNodeinfoFile)
	}
	seen := make(map[string]string) // files and folders, by name in lower case
	for _, f := range files {
		if err := checkName(f.Name); err != nil {
			return fmt.Errorf("file %q %w", excerpt.Of(f.Name), err)
		}
		if other, twice := seen[strings.ToLower(f.Name)]; twice {
			return fmt.Errorf("file %q has the name of %q, letter case aside", f.Name, other)
		}
		seen[strings.ToLower(f.Name)] = f.Name
	}
	for _, f := range files {
		folder, _, deep := strings.Cut(f.Name, "/")
		if !deep {
			continue
		}
		folder += "/"
		key := strings.ToLower(folder)
		if _, isFile := seen[strings.TrimSuffix(key, "/")]; isFile {
			return fmt.Errorf("%q is both a file and a folder", strings.TrimSuffix(folder, "/"))
		}
		if other, there := seen[key]; there && other != folder {
			return fmt.Errorf("folder %q has the name of %q, letter case aside", folder, other)
		}
		seen[key] = folder
	}
	return nil
}

// leftover is what editors, file managers, package managers and shells leave behind.
// Vim makes the file 4913 to try a folder.
var leftover = regexp.MustCompile(`(?i)(^~\$|^#.*#$|~$|\.(sw[a-p]|bak|old|save|orig|rej|tmp|dpkg-(old|new|dist|tmp)|rpm(save|new|orig))$|^(thumbs\.db|ehthumbs\.db|desktop\.ini|4913|nohup\.out)$)`)

// LeftOut reports whether a file or folder with this name in the nodeinfo folder
// is no part of the nodeinfo: hidden ones, and what editors and file managers
// leave behind. Everything else is going to be public.
func LeftOut(name string) bool { return strings.HasPrefix(name, ".") || leftover.MatchString(name) }
