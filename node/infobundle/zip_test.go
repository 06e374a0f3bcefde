package infobundle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
)

// rawEntry is an entry of a zip file. local changes its local header, central its
// header in the central directory, and described its data descriptor.
type rawEntry struct {
	name, content string
	deflate       bool
	packed        []byte // instead of the compressed content, if it is set
	packedMore    string // after the compressed content, but in its size
	extra         string // in both headers
	flags         uint16
	comment       string
	descriptor    bool
	local         func(header []byte)
	central       func(header []byte)
	described     func(descriptor []byte)
}

// rawZip is a zip file with additional bytes before, between and after its parts;
// end changes its end record.
type rawZip struct {
	before, between, beforeDirectory, inDirectory, after, comment string
	entries                                                       []rawEntry
	end                                                           func(record []byte)
}

func (z rawZip) bytes(t testing.TB) []byte {
	t.Helper()
	le := binary.LittleEndian
	file := []byte(z.before)
	var directory []byte
	for i, e := range z.entries {
		if i > 0 {
			file = append(file, z.between...)
		}
		packed, method := []byte(e.content), zip.Store
		if e.deflate {
			var b bytes.Buffer
			w, err := flate.NewWriter(&b, 9)
			if err == nil {
				_, err = w.Write(packed)
			}
			if err := errors.Join(err, w.Close()); err != nil {
				t.Fatal(err)
			}
			packed, method = b.Bytes(), zip.Deflate
		}
		if e.packed != nil {
			packed = e.packed
		}
		packed = append(packed, e.packedMore...)
		flags := e.flags
		if e.descriptor {
			flags |= flagDescriptor
		}
		common := le.AppendUint16(nil, maxVersion)
		common = le.AppendUint16(common, flags)
		common = le.AppendUint16(common, method)
		common = append(common, 0, 0, 0x21, 0)
		common = le.AppendUint32(common, crc32.ChecksumIEEE([]byte(e.content)))
		common = le.AppendUint32(common, uint32(len(packed)))
		common = le.AppendUint32(common, uint32(len(e.content)))
		common = le.AppendUint16(common, uint16(len(e.name)))
		common = le.AppendUint16(common, uint16(len(e.extra)))

		central := append([]byte(centralSignature+"\x14\x03"), common...)
		central = le.AppendUint16(central, uint16(len(e.comment)))
		central = append(central, 0, 0, 0, 0)
		attributes := uint32(typeFile<<typeShift | 0o644<<16)
		if strings.HasSuffix(e.name, "/") {
			attributes = typeDir<<typeShift | 0o755<<16 | attrFolder
		}
		central = le.AppendUint32(central, attributes)
		central = le.AppendUint32(central, uint32(len(file)))
		central = append(central, e.name+e.extra+e.comment...)
		change(e.central, central)
		directory = append(directory, central...)

		local := append([]byte(localSignature), common...)
		if e.descriptor {
			clear(local[14:26])
		}
		local = append(local, e.name+e.extra...)
		change(e.local, local)
		file = append(append(file, local...), packed...)
		if e.descriptor {
			d := append([]byte(descriptorSignature), common[10:22]...)
			change(e.described, d)
			file = append(file, d...)
		}
	}
	file = append(file, z.beforeDirectory...)
	start := len(file)
	file = append(append(file, directory...), z.inDirectory...)
	end := append([]byte(endSignature), 0, 0, 0, 0)
	end = le.AppendUint16(end, uint16(len(z.entries)))
	end = le.AppendUint16(end, uint16(len(z.entries)))
	end = le.AppendUint32(end, uint32(len(file)-start))
	end = le.AppendUint32(end, uint32(start))
	end = le.AppendUint16(end, uint16(len(z.comment)))
	change(z.end, end)
	return append(append(append(file, end...), z.comment...), z.after...)
}

func change(f func([]byte), b []byte) {
	if f != nil {
		f(b)
	}
}

// add returns a function that adds n to the number at an offset of a header.
func add(at int, n uint32) func([]byte) {
	return func(b []byte) {
		binary.LittleEndian.PutUint32(b[at:], binary.LittleEndian.Uint32(b[at:])+n)
	}
}

func set(at int, with string) func([]byte) { return func(b []byte) { copy(b[at:], with) } }

// Only a file that is nothing but a zip file is accepted. A file with bytes that
// could make it valid in another format as well, or that another reader could
// interpret in another way, is refused, also if the root key has signed it.
func TestPlainZipOnly(t *testing.T) {
	first := rawEntry{name: StompTOML, content: "x"}
	second := rawEntry{name: "b", content: strings.Repeat("hello ", 10), deflate: true}
	// one returns the usual file with a changed first entry.
	one := func(edit func(e *rawEntry)) rawZip {
		e := first
		edit(&e)
		return rawZip{entries: []rawEntry{e, second}}
	}
	two := []rawEntry{first, second}
	other := rawZip{entries: []rawEntry{{name: StompTOML, content: "other"}}}.bytes(t)
	inner := zipOf(t, entry{StompTOML, []byte("y"), 0})

	good := map[string]rawZip{
		"usual":                      {entries: two},
		"data descriptors":           one(func(e *rawEntry) { e.deflate, e.descriptor = true, true }),
		"nothing, with a descriptor": {entries: []rawEntry{{name: "0", descriptor: true}, first}},
		"times and owners":           one(func(e *rawEntry) { e.extra = "UT\x05\x00\x030000ux\x00\x00" }),
		"a folder":                   {entries: []rawEntry{first, {name: "f/"}}},
		"a zip file as an entry":     {entries: []rawEntry{first, {name: "x.zip", content: string(inner)}}},
		"names marked as UTF-8":      one(func(e *rawEntry) { e.flags = 1 << 11 }),
		"Deflate, at its best speed": one(func(e *rawEntry) { e.deflate, e.flags = true, 6 }),
	}
	for name, z := range good {
		files, err := unzip("it", z.bytes(t), 10, limit(1<<16))
		if err != nil || len(files) == 0 || string(files[len(files)-1].Data) != first.content && name != "a zip file as an entry" {
			t.Errorf("%s: %v, %v", name, files, err)
		}
	}

	bad := map[string]rawZip{
		"something before it":                              {entries: two, before: "0"},
		"a certificate before it":                          {entries: two, before: "\x30\x82\x01\x00"},
		"a zip file before it":                             {entries: two, before: string(other)},
		"a gap between entries":                            {entries: two, between: "0"},
		"a gap before the directory":                       {entries: two, beforeDirectory: "0"},
		"an entry that is not listed":                      {entries: two, beforeDirectory: string(other[:40])},
		"something in the directory":                       {entries: two, inDirectory: "0"},
		"something after it":                               {entries: two, after: "0"},
		"a comment":                                        {entries: two, comment: "0"},
		"a second end":                                     {entries: two, comment: string(other[len(other)-endSize:])},
		"a zip file after it":                              {entries: two, after: string(other)},
		"fewer entries than it says":                       {entries: two, end: set(8, "\x03\x00\x03\x00")},
		"more entries than it says":                        {entries: two, end: set(8, "\x01\x00\x01\x00")},
		"two numbers of entries":                           {entries: two, end: set(8, "\x01\x00\x02\x00")},
		"several volumes":                                  {entries: two, end: set(4, "\x01\x00")},
		"zip64":                                            {entries: two, end: set(8, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")},
		"the directory elsewhere":                          {entries: two, end: add(16, ^uint32(0))},
		"a zip64 locator":                                  {entries: two, inDirectory: locator64Signature + strings.Repeat("\x00", 16)},
		"a zip64 locator in extra fields":                  {entries: []rawEntry{{name: StompTOML, extra: "UT\x14\x00" + locator64Signature + strings.Repeat("\x00", 16)}}},
		"a zip64 extra field":                              one(func(e *rawEntry) { e.extra = "\x01\x00\x00\x00" }),
		"another name in an extra field":                   one(func(e *rawEntry) { e.extra = "\x75\x70\x06\x00\x010000b" }),
		"a malformed extra field":                          one(func(e *rawEntry) { e.extra = "UT\x05\x00\x03" }),
		"bytes in place of extra fields":                   one(func(e *rawEntry) { e.extra = "000" }),
		"an extra field in one header":                     one(func(e *rawEntry) { e.extra = "UT\x00\x00"; e.local = set(30+10, "\x01\x00") }),
		"another name in the local header":                 one(func(e *rawEntry) { e.local = set(localSize, "other.toml") }),
		"another size of the name":                         one(func(e *rawEntry) { e.local = set(26, "\x09\x00\x01\x00") }),
		"another checksum":                                 one(func(e *rawEntry) { e.local = add(14, 1) }),
		"another packed size":                              one(func(e *rawEntry) { e.local = add(18, 1) }),
		"another size":                                     one(func(e *rawEntry) { e.local = add(22, 1) }),
		"sizes of zero":                                    one(func(e *rawEntry) { e.local = set(14, strings.Repeat("\x00", 12)) }),
		"another method":                                   one(func(e *rawEntry) { e.local = set(8, "\x08") }),
		"other flags":                                      one(func(e *rawEntry) { e.local = set(6, "\x08") }),
		"another version":                                  one(func(e *rawEntry) { e.local = set(4, "\x0a") }),
		"no local header":                                  one(func(e *rawEntry) { e.local = set(0, centralSignature) }),
		"another descriptor":                               one(func(e *rawEntry) { e.deflate, e.descriptor, e.described = true, true, add(4, 1) }),
		"another size in the descriptor":                   one(func(e *rawEntry) { e.deflate, e.descriptor, e.described = true, true, add(12, 1) }),
		"a descriptor without its name":                    one(func(e *rawEntry) { e.deflate, e.descriptor, e.described = true, true, add(0, 1) }),
		"a descriptor after stored content":                one(func(e *rawEntry) { e.descriptor = true }),
		"stored content, a descriptor and the size before": one(func(e *rawEntry) { e.descriptor, e.local = true, set(18, "\x01\x00\x00\x00\x01") }),
		"stored content with a descriptor in it":           one(func(e *rawEntry) { e.descriptor, e.content = true, descriptorSignature+strings.Repeat("\x00", 12)+"x" }),
		"a size before the descriptor":                     one(func(e *rawEntry) { e.deflate, e.descriptor, e.local = true, true, add(22, 2) }),
		"a wrong checksum":                                 one(func(e *rawEntry) { e.local, e.central = add(14, 1), add(16, 1) }),
		"an offset elsewhere":                              one(func(e *rawEntry) { e.central = add(42, 1) }),
		"on another volume":                                one(func(e *rawEntry) { e.central = set(34, "\x01") }),
		"encrypted":                                        one(func(e *rawEntry) { e.flags = 1 }),
		"strongly encrypted":                               one(func(e *rawEntry) { e.flags = 1 << 6 }),
		"headers hidden":                                   one(func(e *rawEntry) { e.flags = 1 << 13 }),
		"a comment of an entry":                            one(func(e *rawEntry) { e.comment = "0" }),
		"a later version":                                  one(func(e *rawEntry) { e.local, e.central = set(4, "\x2d"), set(6, "\x2d") }),
		"an unknown method":                                one(func(e *rawEntry) { e.local, e.central = set(8, "\x0e"), set(10, "\x0e") }),
		"bytes after compressed content":                   one(func(e *rawEntry) { e.deflate, e.packedMore = true, "0" }),
		"two sizes of stored content":                      one(func(e *rawEntry) { e.local, e.central = add(22, 1), add(24, 1) }),
		"a folder with content":                            {entries: []rawEntry{first, {name: "f/", content: "x"}}},
		"less content than it says":                        {entries: []rawEntry{{name: StompTOML, content: "x", deflate: true, local: add(22, 1), central: add(24, 1)}}},
		"more content than it says":                        {entries: []rawEntry{{name: StompTOML, content: "xy", deflate: true, local: add(22, ^uint32(0)), central: add(24, ^uint32(0))}}},
		"entries in another order": {entries: []rawEntry{
			{name: StompTOML, content: "x", central: set(42, "\x29")}, {name: "nothing.ml", content: "y", central: set(42, "\x00")}}},
		"two entries at one place": {entries: []rawEntry{first, {name: StompTOML, content: "x", central: set(42, "\x00")}}},
	}
	a := newAuthor(t, 1)
	for name, z := range bad {
		data := z.bytes(t)
		_, err := unzip("it", data, 10, limit(1<<16))
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		t.Logf("%s: %v", name, err)
		if data[0] == 0x30 {
			continue // SignData refuses to sign it
		}
		if _, err := Read(a.signed(t, data), now); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s, signed: %v", name, err)
		}
	}
}

// made returns a function that sets, in an entry's central header, the system on which the
// entry was made and its external attributes.
func made(system, attributes uint32) func([]byte) {
	return func(header []byte) {
		header[5] = byte(system)
		binary.LittleEndian.PutUint32(header[38:], attributes)
	}
}

// The types of files and folders are accepted as the usual programs encode them.
func TestTypesOfEntries(t *testing.T) {
	for _, test := range []struct {
		of           string
		system       uint32
		file, folder uint32 // external attributes
	}{
		{"zip on Debian", 3, 0x81a40000, 0x41ed0010},
		{"zip on Debian, of a read-only file", 3, 0x81240001, 0x416d0011},
		{"Finder of macOS", 3, 0x81a44000, 0x41ed4000},
		{"zip of macOS", 19, 0x81a40000, 0x41ed0010},
		{"7-Zip on Linux", 3, 0x81a48020, 0x41ed8010},
		{"Python on Linux", 3, 0o600 << 16, 0o40775<<16 | 0x10},
		{"Python on Windows", 0, 0x81b60000, 0x41ff0010},
		{"Go", 3, 0x81a40000, 0x41ed0010},
		{"Go, without a mode, and Java", 0, 0, 0},
		{".NET on Windows", 0, 0, 0},
		{"Windows Explorer", 0, 0x20, 0x10},
		{"Windows Explorer, hidden system file", 11, 0x27, 0x16},
		{"zip on Windows", 11, 0x81b60020, 0x41ff0010},
		{"PKZIP on Windows", 10, 0x20, 0x10},
		{"a file system of Windows 95", 14, 0x20, 0x10},
		{"7-Zip on Windows, not indexed, kept on the device by OneDrive", 0, 0x00082020, 0x00082010},
	} {
		z := rawZip{entries: []rawEntry{
			{name: "folder/", central: made(test.system, test.folder)},
			{name: StompTOML, content: "x", central: made(test.system, test.file)}}}
		if files, err := unzip("it", z.bytes(t), 2, limit(10)); err != nil || len(files) != 1 {
			t.Errorf("%s: %d files, %v", test.of, len(files), err)
		}
	}
}

// Every entry that is accepted as a file is unpacked by unzip as a file, and not as something
// else such as a symbolic link. The entries are made on all systems, with all file types of
// Unix and MS-DOS.
func TestTypesAsInUnzip(t *testing.T) {
	var accepted []rawEntry
	for system := range uint32(40) { // unzip knows of 31
		for unix := range uint32(16) {
			for _, msdos := range []uint32{0, 1, attrVolumeLabel, attrFolder, attrDevice, attrReparse} {
				mode := unix<<typeShift | (0o644^msdos&1<<7)<<16 | msdos
				name := fmt.Sprintf("%d-%08x", system, mode)
				for _, e := range []rawEntry{
					{name: name, content: "x", central: made(system, mode)},
					{name: name + "-folder/", central: made(system, mode|0o100<<16)}} {
					if _, err := unzip("it", rawZip{entries: []rawEntry{e}}.bytes(t), 1, limit(10)); err == nil {
						accepted = append(accepted, e)
					}
				}
			}
		}
	}
	// 6 systems, 2 types of Unix, with and without the bits for read-only and for folders.
	if want := 6 * 2 * (2 + 3); len(accepted) != want {
		t.Errorf("%d entries are accepted, want %d", len(accepted), want)
	}
	dir := t.TempDir()
	unpack(t, dir, rawZip{entries: accepted}.bytes(t))
	for _, e := range accepted {
		info, err := os.Lstat(filepath.Join(dir, e.name))
		if err != nil || info.IsDir() != (e.content == "") || info.Mode()&(fs.ModeType&^fs.ModeDir) != 0 {
			t.Errorf("%s is accepted, but unzip has made %v, error %v", e.name, info, err)
		}
	}
}

// unpack unpacks a zip file with the installed unzip.
func unpack(t *testing.T, dir string, data []byte) {
	t.Helper()
	path, err := exec.LookPath("unzip")
	if err != nil {
		t.Skip("no unzip program: skipped the comparison with it")
	}
	file := filepath.Join(dir, "all.zip")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), path, "-q", file, "-d", dir).CombinedOutput(); err != nil {
		t.Errorf("unzip: %v, %.300s", err, out)
	}
}

// The two bundles of an attack by which a node could be impersonated are refused: in
// one, nodeinfo.zip is the signed part of a certificate whose public key contains a zip
// file; the other is a request for that certificate.
func TestForgedBundles(t *testing.T) {
	for name, want := range map[string]string{
		"forged.zip":  "nodeinfo.zip is not a plain zip file",
		"mallory.zip": "could be taken for something else",
	} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(data, now); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// Archives written by Info-ZIP's zip 3.0 are accepted: written as by the reference
// ("zip -rX"), and to a pipe, with times, owners and data descriptors.
func TestInfoZIP(t *testing.T) {
	for _, name := range []string{"infozip.zip", "infozip-pipe.zip"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		files, err := unzip(name, data, 10, limit(1<<16))
		if err != nil || len(files) != 4 || files[1].Name != StompTOML {
			t.Errorf("%s: %d files, %v", name, len(files), err)
		}
	}
}

// The installed zip and unzip programs read the archives of this package, and this
// package reads theirs.
func TestInstalledZip(t *testing.T) {
	run := func(dir, program string, args ...string) {
		t.Helper()
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skipf("no %s program: skipped the comparison with it", program)
		}
		cmd := exec.CommandContext(t.Context(), path, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v\n%s", program, args, err, out)
		}
	}
	a, dir := newAuthor(t, 1), t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("info/"+StompTOML, []byte(strings.Repeat("x", 1000)))
	write("info/about/text", nil)
	// As the reference's create-infobundle does.
	run(dir+"/info", "zip", "-rX", "../nodeinfo.zip", StompTOML, "about")
	inner, err := os.ReadFile(dir + "/nodeinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := Read(a.signed(t, inner), now)
	if err != nil || len(whole.Nodeinfo) != 2 {
		t.Fatalf("reading a bundle with an archive of zip: %v, %v", whole, err)
	}
	write("root-ca.crt", a.root)
	run(dir, "zip", "-Xj", "-n", ".zip", "outer.zip", "root-ca.crt", "nodeinfo.zip")
	outer, err := os.ReadFile(dir + "/outer.zip")
	if err != nil {
		t.Fatal(err)
	}
	if files, err := unzip("outer.zip", outer, 4, limit(1<<16)); err != nil || len(files) != 2 || !bytes.Equal(files[0].Data, inner) {
		t.Errorf("reading an archive of zip: %v", err)
	}
	write("ours.zip", a.bundle(t))
	run(dir, "unzip", "-t", "ours.zip")
}

// sameAsLibrary checks that archive/zip finds the same files.
func sameAsLibrary(t *testing.T, data []byte, files []File) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		t.Fatalf("accepted an archive that archive/zip refuses: %v", err)
	}
	theirs := make(map[string]string)
	for _, e := range z.File {
		if strings.HasSuffix(e.Name, "/") {
			continue
		}
		r, err := e.Open()
		if err != nil {
			t.Fatalf("accepted an archive that archive/zip refuses: %v", err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("accepted an archive that archive/zip refuses: %v", err)
		}
		theirs[e.Name] = string(content)
	}
	for _, f := range files {
		if content, ok := theirs[f.Name]; !ok || content != string(f.Data) {
			t.Errorf("%q has %q; archive/zip: %q", f.Name, f.Data, content)
		}
	}
	if len(theirs) != len(files) {
		t.Errorf("%d files; archive/zip: %d", len(files), len(theirs))
	}
}
