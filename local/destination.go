package local

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// refusal is the error for a frame of a client that is refused.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refusef(format string, args ...any) error {
	return &refusal{reason: fmt.Sprintf(format, args...)}
}

// destinations are the names in the destinations allowed in SEND and SUBSCRIBE, which are the
// same as in RabbitMQ's STOMP plugin.
type destinations struct {
	inbox     string   // in SUBSCRIBE
	exchanges []string // in SEND
}

// parseSend parses the destination of a SEND. The routing key may be missing, because a
// fanout exchange does not use one. What parseSend returns is no part of the destination, which
// would keep all headers of its frame in memory.
func (d *destinations) parseSend(destination string) (exchange, routingKey string, err error) {
	rest, ok := strings.CutPrefix(destination, "/exchange/")
	if ok {
		exchange, routingKey, _ = strings.Cut(rest, "/")
		exchange, err = unescape(destination, exchange)
		if err == nil {
			routingKey, err = unescape(destination, routingKey)
		}
		if err != nil {
			return "", "", err
		}
	}
	i := -1
	if ok {
		i = slices.Index(d.exchanges, exchange)
	}
	switch {
	case i >= 0:
		return d.exchanges[i], strings.Clone(routingKey), nil
	case ok && exchange == d.inbox:
		return "", "", refusef("SEND to %.100q: the inbox accepts messages of peers only", destination)
	default:
		return "", "", refusef("SEND to %.100q: expected /exchange/<exchange>/<routing key> with exchange %s",
			destination, strings.Join(d.exchanges, " or "))
	}
}

// parseSubscribe parses the destination of a SUBSCRIBE. copies is true if the destination
// is for copies of received messages, and false if it is for the inbox itself.
func (d *destinations) parseSubscribe(destination string) (copies bool, err error) {
	queue, exchange := "/queue/"+d.inbox, "/exchange/"+d.inbox+"/#"
	plain, err := unescape(destination, destination)
	if err != nil {
		return false, err
	}
	switch plain {
	case queue, "/amq" + queue:
		return false, nil
	case exchange:
		return true, nil
	default:
		return false, refusef("SUBSCRIBE to %.100q: expected %s, or %s for copies", destination, queue, exchange)
	}
}

// unescape decodes a part of a destination, in which clients may write any byte as %XX.
func unescape(destination, part string) (string, error) {
	if !strings.Contains(part, "%") {
		return part, nil
	}
	plain, err := url.PathUnescape(part)
	if err != nil {
		return "", refusef("destination %.100q has a %% that does not begin an escape like %%2F", destination)
	}
	return plain, nil
}
