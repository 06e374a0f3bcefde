package infobundle

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/flate"

	"peerlink/internal/excerpt"
)

// A zip file can contain bytes that readers ignore: before the first entry, between entries, in
// extra fields, after the end. So the same bytes can be both a zip file and something else, such
// as the signed part of a certificate, and two readers can find different files in them. Package
// archive/zip accepts all of that. This package accepts only a plain zip file:
//
//   - It begins with the first entry, the entries follow each other without a gap
//     in the order of the central directory, which follows the last entry, and the
//     end of central directory record is the end of the file.
//   - The local header of each entry agrees with its central header, and so does the data
//     descriptor, if there is one.
//   - The compressed content of an entry has the stated sizes and checksum, and
//     nothing after its end. Content that is not compressed has its size in the local
//     header.
//   - Each entry is a regular file or a folder, on every system.
//   - There are no comments, and no extra fields but those for times and owners.
//   - Nothing is encrypted, in several volumes, or in the zip64 format.
//
// Zip programs write such files by default.

const (
	localSignature      = "PK\x03\x04"
	centralSignature    = "PK\x01\x02"
	endSignature        = "PK\x05\x06"
	descriptorSignature = "PK\x07\x08"
	locator64Signature  = "PK\x06\x07"

	localSize      = 30
	centralSize    = 46
	endSize        = 22
	descriptorSize = 16
	locator64Size  = 20
)

const (
	flagDescriptor = 1 << 3
	// The speed of the compression, the data descriptor, names in UTF-8.
	knownFlags = 1<<1 | 1<<2 | flagDescriptor | 1<<11
	// maxVersion is the version of the format with folders and Deflate.
	maxVersion = 20
)

// The extra fields for times and owners: NTFS, Unix (old, new, newest), extended
// timestamp. Other fields change the name, the size or the encryption of an entry for readers
// that support them.
var knownExtraFields = []uint16{0x000a, 0x5855, 0x7855, 0x7875, 0x5455}

// A zipEntry is an entry of a plain zip file.
type zipEntry struct {
	name   string
	method uint16
	crc    uint32
	size   uint32 // size of the unpacked content in bytes
	packed []byte // the content as it is in the file, compressed or not; shares memory with the file
}

// plainEntries returns the entries of a plain zip file. It fails if there are more than
// maxEntries.
func plainEntries(data []byte, maxEntries int) ([]zipEntry, error) {
	if !bytes.HasPrefix(data, []byte(localSignature)) {
		return nil, errors.New("it does not begin with an entry")
	}
	endAt := len(data) - endSize
	if endAt < 0 || string(data[endAt:endAt+4]) != endSignature {
		return nil, errors.New("it does not end with the record that ends a zip file: it may be truncated, or have a comment or something else at its end")
	}
	end := record(data[endAt:])
	count, size, start := end.uint16(10), uint64(end.uint32(12)), uint64(end.uint32(16))
	switch {
	case end.uint16(20) != 0:
		return nil, errors.New("it has a comment")
	case end.uint16(4) != 0 || end.uint16(6) != 0 || end.uint16(8) != count:
		return nil, errors.New("it is one of several volumes")
	case int(count) > maxEntries:
		return nil, fmt.Errorf("it has %d entries, more than %d", count, maxEntries)
	case start+size != uint64(endAt):
		return nil, errors.New("its central directory is not between the entries and the end")
	// Readers that support zip64 look for its locator here, even if the directory contains these bytes.
	case endAt >= locator64Size && string(data[endAt-locator64Size:][:4]) == locator64Signature:
		return nil, errors.New("it is in the zip64 format")
	}
	directory := data[start:endAt]
	var entries []zipEntry
	at := 0 // offset of the local header of the next entry
	for range count {
		central, rest, err := cutCentral(directory)
		if err != nil {
			return nil, err
		}
		e, n, err := readEntry(central, data[at:start], at)
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", excerpt.Of(central.name()), err)
		}
		entries = append(entries, e)
		directory, at = rest, at+n
	}
	if len(directory) != 0 || uint64(at) != start {
		return nil, errors.New("it has something between its last entry and its end that is not in its central directory")
	}
	return entries, nil
}

// A record is a part of a zip file with numbers at fixed offsets.
type record []byte

func (r record) uint16(at int) uint16 { return binary.LittleEndian.Uint16(r[at:]) }
func (r record) uint32(at int) uint32 { return binary.LittleEndian.Uint32(r[at:]) }

// A centralHeader is the header of an entry in the central directory, with its name
// and extra fields.
type centralHeader struct{ record }

func (c centralHeader) name() string  { return string(c.record[centralSize:][:c.uint16(28)]) }
func (c centralHeader) extra() []byte { return c.record[centralSize+int(c.uint16(28)):] }

// cutCentral returns the first header of the central directory, and the rest.
func cutCentral(directory []byte) (c centralHeader, rest []byte, err error) {
	if len(directory) < centralSize || string(directory[:4]) != centralSignature {
		return c, nil, errors.New("its central directory has fewer entries than the end of the file says")
	}
	r := record(directory)
	size := centralSize + int(r.uint16(28)) + int(r.uint16(30))
	if r.uint16(32) != 0 {
		return c, nil, errors.New("it has an entry with a comment")
	}
	if len(directory) < size {
		return c, nil, errors.New("its central directory is cut off")
	}
	return centralHeader{r[:size:size]}, directory[size:], nil
}

// readEntry parses the entry at the beginning of data, which is at the offset at in the file. It
// returns the entry and its size in the file in bytes.
func readEntry(c centralHeader, data []byte, at int) (e zipEntry, n int, err error) {
	version, flags, method := c.uint16(6), c.uint16(8), c.uint16(10)
	packedSize, size := c.uint32(20), c.uint32(24)
	switch {
	case flags&^knownFlags != 0 || version > maxVersion:
		return e, 0, fmt.Errorf("it is encrypted, or needs more than version 2.0 of the zip format (version %d, flags 0x%x)", version, flags)
	case method != zip.Store && method != zip.Deflate:
		return e, 0, fmt.Errorf("compression method %d: expected Store or Deflate", method)
	case method == zip.Store && packedSize != size:
		return e, 0, errors.New("it is not compressed, but its compressed and uncompressed sizes differ")
	case method == zip.Store && flags&flagDescriptor != 0 && size != 0:
		// Some readers take its size from the local header, others look for a descriptor,
		// which the content could contain.
		return e, 0, errors.New("it is not compressed, and has a data descriptor, so that its end is uncertain: expected compressed content (Deflate), or no data descriptor, as Info-ZIP's zip makes it when its output is a file and not a pipe")
	case packedSize != 0 && strings.HasSuffix(c.name(), "/"):
		return e, 0, errors.New("it is a folder, but has content")
	case c.uint16(34) != 0 || uint64(c.uint32(42)) != uint64(at):
		return e, 0, errors.New("it does not follow the entry before it")
	case len(data) < localSize || string(data[:4]) != localSignature:
		return e, 0, errors.New("it has no local header")
	}
	local := record(data)
	nameSize, extraSize := int(local.uint16(26)), int(local.uint16(28))
	begin := localSize + nameSize + extraSize
	n = begin
	if flags&flagDescriptor != 0 {
		n += descriptorSize
	}
	if uint64(len(data)) < uint64(n)+uint64(packedSize) {
		return e, 0, errors.New("it is cut off")
	}
	n += int(packedSize)
	if !sameHeaders(local, c) || string(data[localSize:][:nameSize]) != c.name() {
		return e, 0, errors.New("its local header differs from that in the central directory")
	}
	if err := checkType(c); err != nil {
		return e, 0, err
	}
	for _, extra := range [][]byte{data[localSize+nameSize : begin], c.extra()} {
		if err := checkExtra(extra); err != nil {
			return e, 0, err
		}
	}
	e = zipEntry{name: c.name(), method: method, crc: c.uint32(16), size: size}
	e.packed = data[begin:][:packedSize:packedSize]
	if flags&flagDescriptor != 0 {
		d := data[begin+int(packedSize):]
		if string(d[:4]) != descriptorSignature || !bytes.Equal(d[4:descriptorSize], c.record[16:28]) {
			return e, 0, errors.New("its data descriptor differs from the central directory")
		}
	}
	return e, n, nil
}

// sameHeaders reports whether the local header of an entry agrees with the central one in
// version, flags, method, time, checksum, sizes and length of the name. With a data descriptor,
// checksum and sizes in the local header may be zero.
func sameHeaders(local record, c centralHeader) bool {
	if !bytes.Equal(local[4:14], c.record[6:16]) || local.uint16(26) != c.uint16(28) {
		return false
	}
	for _, at := range []int{14, 18, 22} { // checksum, packed size, size
		got := local.uint32(at)
		if got != c.uint32(at+2) && (got != 0 || c.uint16(8)&flagDescriptor == 0) {
			return false
		}
	}
	return true
}

// The systems on which an entry can have been made, from "version made by": MS-DOS and what
// claims to be it, Unix, Windows NT in PKWARE's and in Info-ZIP's list, VFAT, macOS. For other
// systems, readers differ in the meaning of the external attributes: for example, Info-ZIP's
// unzip finds Unix file types in those of Atari, BeOS and VMS, and archive/zip does not.
var knownSystems = []uint16{0, 3, 10, 11, 14, 19}

// Bits of the external attributes: those of MS-DOS and Windows, and the Unix file type in the
// most significant four.
const (
	attrVolumeLabel = 0x08
	attrFolder      = 0x10
	attrDevice      = 0x40
	attrReparse     = 0x400 // such as a symbolic link of Windows

	typeShift = 28
	typeNone  = 0 // of programs that set no file type, or the permissions only
	typeDir   = 4
	typeFile  = 8
)

// checkType checks that an entry is a folder if its name ends in a slash, and a regular file
// otherwise. Readers look for the type in different bits, depending on the system, so all bits
// must agree for every system.
func checkType(c centralHeader) error {
	system, attributes := c.uint16(4)>>8, c.uint32(38)
	if !slices.Contains(knownSystems, system) {
		return fmt.Errorf("it was made on system number %d of the zip format: expected Unix (3), macOS (19), MS-DOS (0) or Windows (10, 11, 14)", system)
	}
	const special = attrVolumeLabel | attrDevice | attrReparse
	unix := attributes >> typeShift
	if strings.HasSuffix(c.name(), "/") {
		// Not all programs set attrFolder.
		if attributes&special != 0 || unix != typeNone && unix != typeDir {
			return fmt.Errorf("it is a folder by its name, but not by its attributes (0x%08x)", attributes)
		}
	} else if attributes&(special|attrFolder) != 0 || unix != typeNone && unix != typeFile {
		return fmt.Errorf("it is not a regular file by its attributes (0x%08x): expected no link, device or other special file", attributes)
	}
	return nil
}

// checkExtra checks the extra fields of an entry.
func checkExtra(extra []byte) error {
	for len(extra) > 0 {
		if len(extra) < 4 {
			return errors.New("it has a malformed extra field")
		}
		id, size := record(extra).uint16(0), int(record(extra).uint16(2))
		switch {
		case !slices.Contains(knownExtraFields, id):
			return fmt.Errorf("it has the extra field 0x%04x: expected none but those for times and owners", id)
		case len(extra) < 4+size:
			return errors.New("it has a malformed extra field")
		}
		extra = extra[4+size:]
	}
	return nil
}

// flateReaders has readers of compressed content, 50 KiB each. Malicious content, with a new table
// of codes every 80 bytes, makes compress/flate allocate 500 times the size of the content. This
// reader of the same format reuses its memory.
var flateReaders = sync.Pool{New: func() any { return flate.NewReader(bytes.NewReader(nil)) }}

// unpack returns the content of an entry. If the entry is not compressed, the result shares memory
// with the zip file.
func (e zipEntry) unpack() ([]byte, error) {
	content := e.packed
	if e.method == zip.Deflate {
		packed := bytes.NewReader(e.packed)
		r := flateReaders.Get().(io.ReadCloser)
		defer flateReaders.Put(r)
		if err := r.(flate.Resetter).Reset(packed, nil); err != nil {
			return nil, err
		}
		content = make([]byte, e.size)
		if _, err := io.ReadFull(r, content); err != nil {
			return nil, fmt.Errorf("it does not unpack to the %d bytes that its header says: %w", e.size, err)
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF || packed.Len() != 0 {
			return nil, fmt.Errorf("it has more than the %d bytes that its header says, or something after its end", e.size)
		}
	}
	if crc32.ChecksumIEEE(content) != e.crc {
		return nil, errors.New("its checksum is wrong")
	}
	return content, nil
}

// writeZip writes a plain zip file with all sizes in the local headers.
func writeZip(w io.Writer, files []File) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		var packed bytes.Buffer
		c, err := flate.NewWriter(&packed, flate.BestCompression)
		if err != nil {
			return err
		}
		if _, err := c.Write(f.Data); err != nil {
			return err
		}
		if err := c.Close(); err != nil {
			return err
		}
		h := &zip.FileHeader{
			Name: f.Name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(f.Data),
			CompressedSize64: uint64(packed.Len()), UncompressedSize64: uint64(len(f.Data)),
		}
		h.SetMode(0o644)
		e, err := z.CreateRaw(h)
		if err != nil {
			return err
		}
		if _, err := e.Write(packed.Bytes()); err != nil {
			return err
		}
	}
	return z.Close()
}
