package embedded

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"peerlink/broker"
)

// Decoded headers equal the encoded ones: names, order, values and their types.
func TestHeadersRoundTrip(t *testing.T) {
	for _, headers := range [][]broker.Header{
		nil,
		{{Name: "message-type", Value: "PrepareTransfer"}, {Name: "debtor-id", Value: int64(math.MinInt64)},
			{Name: "creditor-id", Value: int64(math.MaxInt64)}, {Name: "ca-creditors", Value: false}, {Name: "ca-trade", Value: true}},
		{{Name: "s", Value: ""}, {Name: "s", Value: "true"}, {Name: "s", Value: "12"}, {Name: "n", Value: int64(0)}},
		{{Name: "coordinator-type", Value: "a\nb=\"c\"\x00\\ é \xff\u2028"}},
	} {
		text, err := encodeHeaders(headers)
		if err != nil {
			t.Errorf("%v: %v", headers, err)
			continue
		}
		got, err := decodeHeaders(text)
		if err != nil || !reflect.DeepEqual(got, headers) {
			t.Errorf("%v: decoding gives %v, %v", headers, got, err)
		}
	}
}

// Headers that can not be decoded unchanged are refused.
func TestHeadersRefused(t *testing.T) {
	for _, h := range []broker.Header{
		{Name: "", Value: "x"},
		{Name: "a=b", Value: "x"},
		{Name: "a\nb", Value: "x"},
		{Name: strings.Repeat("n", 256), Value: "x"},
		{Name: "float", Value: 1.5},
		{Name: "int", Value: 1},
		{Name: "nil", Value: nil},
		{Name: "long", Value: strings.Repeat("x", maxHeaders)},
	} {
		if text, err := encodeHeaders([]broker.Header{h}); !errors.Is(err, errInvalid) {
			t.Errorf("%s: got %q, %v, want ErrInvalid", h.Name, text, err)
		}
	}
}

// Decoding any text is safe, and the decoded headers can be encoded again.
func FuzzDecodeHeaders(f *testing.F) {
	for _, s := range []string{"a=1", "a=true\nb=\"x\"", "=1", "a", "a=", "a=\"", "a=99999999999999999999", "a=\"\\xff\"", "a='x'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		headers, err := decodeHeaders(s)
		if err != nil {
			return
		}
		text, err := encodeHeaders(headers)
		if err != nil {
			return // a name that encodeHeaders refuses
		}
		again, err := decodeHeaders(text)
		if err != nil || !reflect.DeepEqual(again, headers) {
			t.Errorf("%q was decoded as %v, but after encoding as %v, %v", s, headers, again, err)
		}
	})
}
