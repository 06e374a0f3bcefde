package rabbitmq

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// idOf returns an ID for a message, since messages of RabbitMQ have none: a digest of the
// body and of all properties that stay the same when the message is redelivered or replaced
// by a copy.
func idOf(d amqp.Delivery) string {
	h := sha256.New()
	for _, text := range []string{
		d.ContentType, d.ContentEncoding, d.CorrelationId, d.ReplyTo, d.Expiration, d.MessageId, d.Type, d.AppId, string(d.Body),
	} {
		fmt.Fprintf(h, "%d:%s", len(text), text)
	}
	fmt.Fprintf(h, "%d,%d,%d", d.DeliveryMode, d.Priority, d.Timestamp.Unix())
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		if !isDeliveryCount(name) && name != "CC" && name != "BCC" {
			fmt.Fprintf(h, "%d:%s", len(name), name)
			digest(h, d.Headers[name])
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// digest writes a header value in a canonical form.
func digest(w io.Writer, value any) {
	switch v := value.(type) {
	case amqp.Table:
		fmt.Fprintf(w, "table %d", len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			fmt.Fprintf(w, "%d:%s", len(name), name)
			digest(w, v[name])
		}
	case []any:
		fmt.Fprintf(w, "list %d", len(v))
		for _, element := range v {
			digest(w, element)
		}
	case time.Time:
		fmt.Fprintf(w, "time %d", v.Unix()) // independent of the local time zone
	default:
		text := fmt.Sprint(v)
		fmt.Fprintf(w, "%T %d:%s", v, len(text), text)
	}
}
