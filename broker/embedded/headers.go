package embedded

import (
	"fmt"
	"strconv"
	"strings"

	"peerlink/broker"
)

// Application headers are stored as one text, with one line for each header, in order:
//
//	message-type="PrepareTransfer"
//	debtor-id=-4294967296
//	ca-trade=true
//
// Strings are quoted as in Go, so that a value contains no line break and its type is
// unambiguous.

// encodeHeaders returns the stored form of headers.
func encodeHeaders(headers []broker.Header) (string, error) {
	if len(headers) == 0 {
		return "", nil
	}
	text := make([]byte, 0, 32*len(headers))
	for i, h := range headers {
		if err := checkName("header name", h.Name); err != nil {
			return "", err
		}
		if strings.Contains(h.Name, "=") {
			return "", fmt.Errorf("%w: header name %q contains \"=\"", errInvalid, h.Name)
		}
		if i > 0 {
			text = append(text, '\n')
		}
		text = append(text, h.Name...)
		text = append(text, '=')
		switch v := h.Value.(type) {
		case int64:
			text = strconv.AppendInt(text, v, 10)
		case bool:
			text = strconv.AppendBool(text, v)
		case string:
			if len(v) > maxHeaders {
				return "", tooManyHeaders(len(v))
			}
			text = strconv.AppendQuote(text, v)
		default:
			return "", fmt.Errorf("%w: header %s has a value of type %T, expected int64, bool or string",
				errInvalid, h.Name, h.Value)
		}
		if len(text) > maxHeaders {
			return "", tooManyHeaders(len(text))
		}
	}
	return string(text), nil
}

func tooManyHeaders(n int) error {
	return fmt.Errorf("%w: headers have %d bytes or more, at most %d are possible", errInvalid, n, maxHeaders)
}

// decodeHeaders is the inverse of encodeHeaders.
func decodeHeaders(text string) ([]broker.Header, error) {
	if text == "" {
		return nil, nil
	}
	headers := make([]broker.Header, 0, strings.Count(text, "\n")+1)
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("stored header %q is damaged: expected name=value", line)
		}
		h := broker.Header{Name: name}
		var err error
		switch {
		case value == "true" || value == "false":
			h.Value = value == "true"
		case strings.HasPrefix(value, `"`):
			h.Value, err = strconv.Unquote(value)
		default:
			h.Value, err = strconv.ParseInt(value, 10, 64)
		}
		if err != nil {
			return nil, fmt.Errorf("stored header %q is damaged: expected a number, true, false, or a quoted string", line)
		}
		headers = append(headers, h)
	}
	return headers, nil
}
