// Package jsonlimit decodes untrusted JSON within a limit of memory.
//
// A few bytes of JSON can take hundreds of bytes of memory: "{}" or "null" in a list of large
// structures, for example, and [encoding/json] goes on after a value of the wrong type. This package
// computes, from the text and the Go type, what decoding will allocate, before it decodes.
package jsonlimit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
)

// ErrTooLarge is returned for text that has more bytes, or takes more memory, than permitted.
var ErrTooLarge = errors.New("too large")

// ReadBody returns the body of a response of HTTP. It may have max bytes, or half as many if the response does
// not say how many: those are copied once more, and ReadBody allocates hardly more than max bytes.
func ReadBody(res *http.Response, max int64) ([]byte, error) {
	if res.ContentLength > max {
		return nil, fmt.Errorf("%w: it has %d bytes, expected at most %d", ErrTooLarge, res.ContentLength, max)
	}
	if res.ContentLength >= 0 {
		body := make([]byte, res.ContentLength)
		_, err := io.ReadFull(res.Body, body)
		return body, err
	}
	max /= 2
	body, err := io.ReadAll(io.LimitReader(res.Body, max+1))
	if err == nil && int64(len(body)) > max {
		err = fmt.Errorf("%w: expected at most %d bytes in a response without Content-Length", ErrTooLarge, max)
	}
	return body, err
}

// Unmarshal is [json.Unmarshal] after [Check].
func Unmarshal(text []byte, v any, max int) error {
	if err := Check(text, v, max); err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// Check returns an error if to decode the text into the value that v points to would allocate more than max
// bytes, or if the text has a value of another type than v has at that place. Check allocates no more than that
// itself: it gives the lists in v, outside of other lists, the capacity that they need.
//
// Types in v that decode themselves must be [json.RawMessage] or [time.Time].
func Check(text []byte, v any, max int) error {
	target := reflect.ValueOf(v).Elem()
	s := scanner{text: text, left: max}
	err := s.value(target.Type(), target, 0)
	if errors.Is(err, errSyntax) {
		if invalid := json.Unmarshal(text, new(struct{})); invalid != nil {
			return invalid // it says where
		}
	}
	return err
}
