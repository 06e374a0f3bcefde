package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Text of peers cannot change the direction of text in a browser, nor control the
// terminal on which a response is shown.
func TestAnswersAreEscaped(t *testing.T) {
	w := httptest.NewRecorder()
	escapeControls(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, "a → \u202e\u009b\x1b[2J")
	})(w, httptest.NewRequest("GET", "/", nil))
	if got, want := w.Body.String(), `a → \u202e\u009b\x1b[2J`; got != want || w.Code != http.StatusServiceUnavailable {
		t.Errorf("%d %q, want %q", w.Code, got, want)
	}
}
