package smp

import (
	"crypto/md5"
	"encoding/binary"

	"peerlink/node/nodetype"
)

// RoutingKey distributes IDs evenly over a tree of topics, so that an application can
// split its queue in two repeatedly: it returns the top 24 bits of MD5 over the IDs, as
// binary digits separated by dots, "1.0.1. ...". MD5 is defined by the protocol; nothing here
// depends on its cryptographic strength. (Section "Incoming", 6.)
func RoutingKey(ids ...int64) string {
	input := make([]byte, 0, 16)
	for _, id := range ids {
		input = binary.BigEndian.AppendUint64(input, uint64(id))
	}
	digest := md5.Sum(input)
	top := binary.BigEndian.Uint32(digest[:4]) >> 8
	var key [2*24 - 1]byte
	for i := range key {
		if i%2 == 1 {
			key[i] = '.'
		} else {
			key[i] = '0' + byte(top>>(23-i/2)&1)
		}
	}
	return string(key[:])
}

// OutgoingRoutingKey returns the routing key with which an application of a node of type
// owner publishes a message about an account to its node's exchange, for a peer of type
// peer: one of the two IDs as 8 hexadecimal bytes separated by dots, to be matched by
// [Subnet.BindingKey]. It is empty for a debtors agent, which has only one peer, and for
// types that cannot be peers. (Section "RabbitMQ objects of the reference".)
//
// An application of a creditors agent routes by the debtor, because the debtor ID is not
// changed by translation.
func OutgoingRoutingKey(owner, peer nodetype.Type, debtorID, creditorID int64) string {
	switch {
	case !owner.CanPeer(peer) || owner == nodetype.DebtorsAgent:
		return ""
	case peer == nodetype.CreditorsAgent:
		return dottedHex(uint64(creditorID))
	default:
		return dottedHex(uint64(debtorID))
	}
}

// dottedHex returns the eight bytes of n, "00.00.01.00.00.00.00.2a".
func dottedHex(n uint64) string {
	const digits = "0123456789abcdef"
	key := make([]byte, 0, 3*8)
	for shift := 56; shift >= 0; shift -= 8 {
		b := byte(n >> shift)
		key = append(key, digits[b>>4], digits[b&15], '.')
	}
	return string(key[:len(key)-1])
}
