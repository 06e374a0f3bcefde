package infobundle

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"peerlink/internal/excerpt"
)

// maxName is the maximum length, in bytes, of the name of a nodeinfo file, including its folder.
const maxName = 100

// nameElement matches the allowed names of files and folders: without a leading dot, and without
// characters that are special for a Unix shell or another system. A tilde is allowed at the end,
// because the reference implementation packs backup files of Emacs.
var nameElement = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*~?$`)

// deviceName matches the names of Windows devices, which remain devices with any extension.
var deviceName = regexp.MustCompile(`(?i)^(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?$`)

// explorerName matches the files that the Windows Explorer evaluates when it displays a folder.
var explorerName = regexp.MustCompile(`(?i)^(desktop\.ini|autorun\.inf|.*\.(lnk|url|scf|pif|library-ms|searchconnector-ms|theme))$`)

// programName matches the files that an operating system or interpreter may run because of their
// names: Windows searches for commands, and Python for modules, in the current folder first.
var programName = regexp.MustCompile(`(?i)\.(exe|com|bat|cmd|ps1|psm1|psd1|vbs|vbe|js|jse|mjs|cjs|wsf|wsh|ws|hta|msi|msp|msc|scr|cpl|dll|ocx|drv|sys|jar|py|pyw|pyc|pyd|pyo|pyz|pth|so|dylib|sh|bash|zsh|csh|ksh|fish|command|app|desktop|rb|pl|pm|php|lua|reg|inf|chm|hlp|appref-ms|application|settingcontent-ms|diagcab|xll|iqy|slk|rdp|job|appx|gadget|el|elc)$`)

// toolFileName matches the files that control build tools or editors in the current folder.
var toolFileName = regexp.MustCompile(`(?i)^((gnu)?makefile|justfile|taskfile\.ya?ml|cmakelists\.txt|meson\.build|sconstruct|(build|workspace)(\.bazel)?|rakefile|gemfile|vagrantfile` +
	`|package\.json|pyproject\.toml|cargo\.toml|flake\.nix|default\.nix|shell\.nix|dockerfile|containerfile|(docker-)?compose(\.override)?\.ya?ml|kustomization(\.ya?ml)?` +
	`|.*\.(gradle|gradle\.kts|[a-z]+proj|sln|code-workspace))$`)

// renameIt is the advice in errors about a name in another node's bundle.
const renameIt = "; the bundle's owner has to rename or remove it, and to make a new bundle"

// checkName checks the name of an entry. The files are unpacked on peers, and must be harmless
// there. For example, operators keep them in Git, which considers a folder with a file HEAD a
// repository, and may run commands in its configuration.
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
			return errors.New("is named HEAD: git could take its folder for a repository, and run commands from its configuration")
		case deviceName.MatchString(e):
			return errors.New("has the name of a device of Windows")
		case explorerName.MatchString(e):
			return errors.New("has a name by which Windows would act on it")
		case programName.MatchString(e):
			return errors.New("has the name of a program, which a command that is started in its folder could run")
		}
	}
	if toolFileName.MatchString(elements[len(elements)-1]) {
		return errors.New("has the name of a file that tools such as make read from the current folder")
	}
	for _, known := range []string{StompTOML, UpdatedAt} {
		if name != known && strings.EqualFold(name, known) {
			return fmt.Errorf("must be named %s", known)
		}
	}
	return nil
}

// CheckFiles checks the number and the names of nodeinfo files. Files may be in one level of
// folders. Names must be harmless, and must be distinct on systems that ignore letter case. The
// error contains the name of the file.
func CheckFiles(files []File) error {
	if len(files) > maxNodeinfoFiles {
		return fmt.Errorf("more than %d files", maxNodeinfoFiles)
	}
	seen := make(map[string]string) // files and folders by their names in lower case
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

// leftover matches temporary and backup files of editors, file managers, package managers,
// browsers and shells. Vim creates the file 4913 to test whether a folder is writable.
var leftover = regexp.MustCompile(`(?i)(^~\$|^#.*#$|~$|\.(sw[a-p]|bak|old|save|orig|rej|tmp|part|crdownload|dpkg-(old|new|dist|tmp)|rpm(save|new|orig))$|^(thumbs\.db|ehthumbs\.db|desktop\.ini|4913|nohup\.out)$)`)

// Excluded reports whether a file or folder with this name is excluded from info-bundles: hidden
// files, and temporary and backup files of editors and file managers. Everything else in the
// nodeinfo folder becomes public.
func Excluded(name string) bool { return strings.HasPrefix(name, ".") || leftover.MatchString(name) }
