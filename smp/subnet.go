package smp

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"
)

// Subnet is a range of creditor or debtor IDs: those that, as unsigned 64-bit numbers,
// have the bits of Value wherever Mask has a one. The zero Subnet contains every ID.
// (Section "Subnets".)
//
// The mask of a subnet from [ParseSubnet] is a sequence of leading ones, and its value has
// no bits outside of the mask. [View.Check] returns an error for a subnet that does not
// meet these conditions.
type Subnet struct{ Value, Mask uint64 }

// ParseSubnet parses the leading hexadecimal digits that the IDs of a subnet share, at
// most 16, in upper or lower case: "000001" in a creditors-subnet.txt, or an accounting
// authority's node ID. The empty string is the range of all IDs.
func ParseSubnet(digits string) (Subnet, error) {
	if len(digits) > 16 {
		return Subnet{}, fmt.Errorf("invalid subnet %s: expected at most 16 hexadecimal digits", excerpt(digits))
	}
	padded, err := hex.DecodeString(digits + strings.Repeat("0", 16-len(digits)))
	if err != nil {
		return Subnet{}, fmt.Errorf("invalid subnet %s: expected hexadecimal digits only", excerpt(digits))
	}
	var s Subnet
	for _, b := range padded {
		s.Value = s.Value<<8 | uint64(b)
	}
	s.Mask = ^(^uint64(0) >> (4 * len(digits)))
	return s, nil
}

// exactly returns the subnet that contains a single ID, like a debtors agent's range of
// creditors.
func exactly(id int64) Subnet { return Subnet{Value: uint64(id), Mask: ^uint64(0)} }

// Contains reports whether the subnet contains id.
func (s Subnet) Contains(id int64) bool { return uint64(id)&s.Mask == s.Value }

// Bits returns the number of leading bits that the IDs of the subnet share, 0 to 64.
func (s Subnet) Bits() int { return bits.LeadingZeros64(^s.Mask) }

// String returns the subnet's leading hexadecimal digits in lower case, for [ParseSubnet].
// If the mask is not a whole number of digits, or not a prefix, String returns value and
// mask in full.
func (s Subnet) String() string {
	if !s.wellFormed() || s.Bits()%4 != 0 {
		return fmt.Sprintf("%016x/%016x", s.Value, s.Mask)
	}
	return fmt.Sprintf("%016x", s.Value)[:s.Bits()/4]
}

// BindingKey returns the topic that matches the [OutgoingRoutingKey] of every ID in the
// subnet: its bytes in hexadecimal, then a "#" for the rest, as in "00.00.01.#". It
// returns an error for a subnet whose mask is not whole bytes. (Section "RabbitMQ objects
// of the reference".)
func (s Subnet) BindingKey() (string, error) {
	if !s.wellFormed() || s.Bits()%8 != 0 {
		return "", fmt.Errorf("subnet %v has no binding key: expected whole bytes, which is an even number of hexadecimal digits", s)
	}
	if s.Bits() == 64 {
		return dottedHex(s.Value), nil
	}
	return dottedHex(s.Value)[:3*(s.Bits()/8)] + "#", nil
}

// wellFormed reports whether the mask is a sequence of leading ones, and the value has no
// bits outside of the mask.
func (s Subnet) wellFormed() bool {
	host := ^s.Mask
	return host&(host+1) == 0 && s.Value&host == 0
}

// translate translates an ID from subnet s to subnet to: it replaces the leading bits,
// which the mask covers, and keeps the other bits. The two subnets must have the same
// mask, which [View.Check] ensures. IDs are treated as bit patterns: an ID is negative if
// its top bit is set.
func (s Subnet) translate(id int64, to Subnet) int64 {
	return int64(to.Value | uint64(id)&^s.Mask)
}
