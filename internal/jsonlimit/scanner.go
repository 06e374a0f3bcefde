package jsonlimit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// maxDepth is the maximum depth of lists and objects in each other.
const maxDepth = 100

// maxNumber is the maximum length of a number in bytes.
const maxNumber = 30

// What encoding/json allocates, in bytes, rounded up.
const (
	costOfString  = 16  // beside its bytes: the size is rounded up
	costOfBoxed   = 16  // a string or number in an interface
	costOfList    = 64  // a list without elements
	costOfZone    = 300 // the zone of a time that is not in UTC
	costOfMap     = 400 // a map with one entry
	costOfSkipped = 8   // a value that is not decoded, which bounds the time for them
	costOfEntry   = 170 // a further entry, with the map's growth, and without what it points to
)

var (
	errSyntax = errors.New("it is not JSON")

	typeOfTime = reflect.TypeFor[time.Time]()
	typeOfRaw  = reflect.TypeFor[json.RawMessage]()
	typeOfAny  = reflect.TypeFor[any]()
)

// scanner goes through JSON, and subtracts from left what decoding it will allocate. It may accept text that is
// not JSON: encoding/json checks that before it allocates anything.
type scanner struct {
	text []byte
	at   int // the index of the next byte
	left int // how many bytes may be allocated yet
}

// spend subtracts the cost of n values.
func (s *scanner) spend(n int, each uintptr) error {
	if n > 0 && int(each) > s.left/n {
		return fmt.Errorf("%w: it takes more memory than expected", ErrTooLarge)
	}
	s.left -= n * int(each)
	return nil
}

// next returns the next byte that is no space, or 0 at the end of the text.
func (s *scanner) next() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// value goes through a value that will be decoded into one of the type t, or nowhere if t is nil. v is the
// variable into which it is decoded, or is invalid if that is not allocated yet.
func (s *scanner) value(t reflect.Type, v reflect.Value, depth int) error {
	if t == nil { // decoding skips it, which takes time only
		if err := s.spend(1, costOfSkipped); err != nil {
			return err
		}
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: it has more than %d lists and objects in each other", ErrTooLarge, maxDepth)
	}
	if t == typeOfRaw {
		start := s.at
		if err := s.value(nil, reflect.Value{}, depth); err != nil {
			return err
		}
		return s.spend(1, uintptr(s.at-start)*9/8+costOfString)
	}
	if t != nil && t.Kind() == reflect.Pointer && s.next() != 'n' {
		if err := s.spend(1, t.Elem().Size()+costOfString); err != nil {
			return err
		}
		t, v = t.Elem(), reflect.Value{}
	}
	switch s.next() {
	case '{':
		return s.object(t, v, depth)
	case '[':
		return s.list(t, v, depth)
	case '"':
		return s.str(t)
	}
	return s.literal(t)
}

// wrongType returns the error for a value that does not belong into one of the type t.
func (s *scanner) wrongType(what string, t reflect.Type) error {
	return fmt.Errorf("it has %s at byte %d, where a value of the type %s is expected", what, s.at, t)
}

// list goes through a list.
func (s *scanner) list(t reflect.Type, v reflect.Value, depth int) error {
	var elem reflect.Type
	switch {
	case t == nil:
	case t == typeOfAny:
		elem, v = typeOfAny, reflect.Value{}
	case t.Kind() == reflect.Slice:
		elem = t.Elem()
	default:
		return s.wrongType("a list", t)
	}
	if elem != nil {
		if err := s.spend(1, costOfList); err != nil {
			return err
		}
	}
	n, err := s.elements(elem, v.IsValid(), depth)
	if err == nil && v.IsValid() && n > 0 {
		v.Set(reflect.MakeSlice(t, 0, n))
	}
	return err
}

// elements goes through the elements of a list, and returns how many there are. exact reports whether the
// list has the capacity for them before they are decoded.
func (s *scanner) elements(elem reflect.Type, exact bool, depth int) (n int, err error) {
	s.at++
	for capacity := 0; s.next() != ']'; n++ {
		if elem != nil && n == capacity {
			added := 1
			if !exact {
				added = grown(capacity)
			}
			if err := s.spend(added, elem.Size()*9/8+8); err != nil {
				return 0, err
			}
			capacity = max(n+1, added)
		}
		if err := s.value(elem, reflect.Value{}, depth+1); err != nil {
			return 0, err
		}
		if s.next() == ',' {
			s.at++
		} else if s.next() != ']' {
			return 0, errSyntax
		}
	}
	s.at++
	return n, nil
}

// grown returns a capacity to which append extends a slice at least.
func grown(capacity int) int {
	switch {
	case capacity == 0:
		return 1
	case capacity < 256:
		return 2 * capacity
	}
	return capacity + (capacity+3*256)/4
}

// object goes through an object.
func (s *scanner) object(t reflect.Type, v reflect.Value, depth int) error {
	isMap := false
	switch {
	case t == nil:
	case t == typeOfAny:
		t, isMap = reflect.TypeFor[map[string]any](), true
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		isMap = true
	case t.Kind() != reflect.Struct || t == typeOfTime:
		return s.wrongType("an object", t)
	}
	if isMap {
		if err := s.spend(1, costOfMap); err != nil {
			return err
		}
	}
	s.at++
	for s.next() != '}' {
		if s.next() != '"' {
			return errSyntax
		}
		key, err := s.quoted()
		if err != nil {
			return err
		}
		if s.next() != ':' {
			return errSyntax
		}
		s.at++
		if err := s.member(t, v, isMap, key, depth); err != nil {
			return err
		}
		if s.next() == ',' {
			s.at++
		} else if s.next() != '}' {
			return errSyntax
		}
	}
	s.at++
	return nil
}

// member goes through the value of a member of an object.
func (s *scanner) member(t reflect.Type, v reflect.Value, isMap bool, key []byte, depth int) error {
	if t == nil {
		return s.value(nil, reflect.Value{}, depth+1)
	}
	if isMap {
		if err := s.spend(1, costOfEntry+2*t.Elem().Size()+costOfText(key)); err != nil {
			return err
		}
		return s.value(t.Elem(), reflect.Value{}, depth+1)
	}
	fields := fieldsOf(t)
	if index, ok := fields[string(key)]; ok {
		var field reflect.Value
		if v.IsValid() {
			field = v.FieldByIndex(index)
		}
		return s.value(t.FieldByIndex(index).Type, field, depth+1)
	}
	if fields.misspelt(key) { // encoding/json would take it for that field
		return fmt.Errorf("it has the name %.40q at byte %d, where another spelling is expected", key, s.at)
	}
	if err := s.spend(1, costOfText(key)); err != nil {
		return err
	}
	return s.value(nil, reflect.Value{}, depth+1)
}

// quoted goes through a string, and returns what is between the quotes.
func (s *scanner) quoted() ([]byte, error) {
	start := s.at + 1
	for i := start; i < len(s.text); i++ {
		switch s.text[i] {
		case '\\':
			i++
		case '"':
			s.at = i + 1
			return s.text[start:i], nil
		}
	}
	return nil, errSyntax
}

// str goes through a string that will be decoded into a value of the type t.
func (s *scanner) str(t reflect.Type) error {
	text, err := s.quoted()
	switch {
	case err != nil, t == nil, t == typeOfTime && bytes.HasSuffix(text, []byte("Z")):
		return err
	case t == typeOfTime:
		return s.spend(1, costOfZone)
	case t == typeOfAny:
		return s.spend(1, costOfBoxed+costOfText(text))
	case t.Kind() == reflect.String:
		return s.spend(1, costOfText(text))
	}
	return s.wrongType("a string", t)
}

// costOfText returns what a string costs, of which this is the text in JSON: one with escapes is decoded in a
// buffer, and each byte that is not UTF-8 becomes a character of three bytes.
func costOfText(text []byte) uintptr {
	n := uintptr(len(text))
	switch {
	case n == 0:
		return 0
	case bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text):
		return n*9/8 + costOfString
	}
	return 12*n + 2*costOfString
}

// literal goes through a number, true, false or null that will be decoded into a value of the type t.
func (s *scanner) literal(t reflect.Type) error {
	start := s.at
	for s.at < len(s.text) && bytes.IndexByte([]byte(" \t\r\n,]}:\""), s.text[s.at]) < 0 {
		s.at++
	}
	text := s.text[start:s.at]
	if len(text) == 0 {
		return errSyntax
	}
	switch c := text[0]; {
	case t == nil, c == 'n':
		return nil
	case c == 't', c == 'f':
		if t != typeOfAny && t.Kind() != reflect.Bool {
			return s.wrongType("true or false", t)
		}
		return nil
	case c != '-' && (c < '0' || c > '9'):
		return errSyntax
	}
	return s.number(text, t)
}

func (s *scanner) number(text []byte, t reflect.Type) error {
	if len(text) > maxNumber {
		return s.wrongType("a long number", t)
	}
	var err error
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		_, err = strconv.ParseInt(string(text), 10, 64)
	case reflect.Uint, reflect.Uint64:
		_, err = strconv.ParseUint(string(text), 10, 64)
	case reflect.Float64:
		_, err = strconv.ParseFloat(string(text), 64)
	case reflect.Interface:
		return s.spend(1, costOfBoxed+costOfString+maxNumber)
	default:
		err = errSyntax
	}
	if err != nil {
		return s.wrongType("another number", t)
	}
	return nil
}

// fields are the indexes of a structure's fields by their names in JSON.
type fields map[string][]int

var cached sync.Map // of fields by reflect.Type

func fieldsOf(t reflect.Type) fields {
	if f, ok := cached.Load(t); ok {
		return f.(fields)
	}
	f := make(fields)
	for _, field := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case !field.IsExported() || name == "-" || field.Anonymous && name == "":
			continue
		case name == "":
			name = field.Name
		}
		f[name] = field.Index
	}
	cached.Store(t, f)
	return f
}

// misspelt reports whether a name, which is none of the fields', may differ from one only in its spelling.
// The names of all fields are in lower case.
func (f fields) misspelt(name []byte) bool {
	other := false
	for _, c := range name {
		if c == '\\' || c >= utf8.RuneSelf {
			return true
		}
		other = other || 'A' <= c && c <= 'Z'
	}
	if !other || len(name) > maxName {
		return false
	}
	var lower [maxName]byte
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	_, found := f[string(lower[:len(name)])]
	return found
}

// maxName is the maximum length of a field's name in bytes.
const maxName = 64
