package httplimit

import (
	"bytes"
	"net/http"
	"strconv"
)

const (
	// maxResponses is how many large responses of a server are written at once. One more
	// closes the oldest one's connection, of the source that has the most.
	maxResponses = 64
	// smallResponse is the size of a response up to which it does not count: it fits into
	// the buffers of a connection, so that its client need not read.
	smallResponse = 4 << 10
	// maxComputing is how many responses of one handler are computed at once.
	maxComputing = 4
)

// Buffered returns a handler that lets next compute a response in memory, four at once, and
// writes it afterwards. Therefore next does not wait for clients, and slow clients do not delay
// the responses to others. No more than 64 large responses of a server are kept for clients
// that read slowly: one more closes the connection of the oldest one, of the source that has
// the most. The handler must belong to a server for which [Apply] was called.
func Buffered(next http.HandlerFunc) http.HandlerFunc {
	computing := make(chan struct{}, maxComputing)
	return func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(clientKey{}).(*client)
		b := &buffer{ResponseWriter: w, status: http.StatusOK}
		if !b.compute(next, c.limiter, computing, r) {
			return
		}
		if b.body.Len() > smallResponse {
			defer c.limiter.responses.Add(c.source, c).Remove()
		}
		w.Header().Set("Content-Length", strconv.Itoa(b.body.Len()))
		w.WriteHeader(b.status)
		_, _ = w.Write(b.body.Bytes()) // an error means that the connection has ended
	}
}

// buffer is a [http.ResponseWriter] that keeps the response in memory.
type buffer struct {
	http.ResponseWriter // for the header
	status              int
	body                bytes.Buffer
}

func (b *buffer) WriteHeader(status int)      { b.status = status }
func (b *buffer) Write(p []byte) (int, error) { return b.body.Write(p) }

// compute calls next when there is a slot in computing. It returns false if there was none
// in time.
func (b *buffer) compute(next http.HandlerFunc, l *limiter, computing chan struct{}, r *http.Request) bool {
	if !l.acquire(computing, b.ResponseWriter, r) {
		return false
	}
	defer func() { <-computing }()
	next(b, r)
	return true
}
