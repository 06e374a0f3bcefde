package keyshare

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"
)

// A shareValue is the value of a share, or the secret S of the package comment: a scalar of
// ristretto255.
type shareValue [32]byte

// newValues makes a secret and its share values, by index. threshold of them restore the
// secret.
func newValues(threshold, total int) (secret shareValue, values []shareValue, err error) {
	s := group.Ristretto255.RandomNonZeroScalar(rand.Reader)
	defer s.SetUint64(0)
	if secret, err = valueOf(s); err != nil {
		return shareValue{}, nil, err
	}
	// The library's parameter is the maximum number of shares that are not sufficient.
	shares := secretsharing.New(rand.Reader, uint(threshold-1), s).Share(uint(total))
	for _, share := range shares {
		v, err := valueOf(share.Value)
		if err != nil {
			return shareValue{}, nil, err
		}
		share.Value.SetUint64(0)
		values = append(values, v)
	}
	return secret, values, nil
}

// recoverSecret restores the secret from at least threshold shares with different indexes.
func recoverSecret(threshold int, shares []*Share) (shareValue, error) {
	points := make([]secretsharing.Share, len(shares))
	for i, s := range shares {
		value, err := s.value.scalar()
		if err != nil {
			return shareValue{}, err
		}
		points[i] = secretsharing.Share{ID: group.Ristretto255.NewScalar().SetUint64(uint64(s.index)), Value: value}
	}
	secret, err := secretsharing.Recover(uint(threshold-1), points)
	if err != nil {
		return shareValue{}, err
	}
	for _, p := range points {
		p.Value.SetUint64(0)
	}
	defer secret.SetUint64(0)
	return valueOf(secret)
}

func valueOf(s group.Scalar) (shareValue, error) {
	b, err := s.MarshalBinary()
	if err != nil {
		return shareValue{}, fmt.Errorf("share value: %w", err)
	}
	defer clear(b)
	return shareValue(b), nil
}

// scalar decodes the value. It fails unless the encoding is canonical.
func (v *shareValue) scalar() (group.Scalar, error) {
	s := group.Ristretto255.NewScalar()
	if err := s.UnmarshalBinary(v[:]); err != nil {
		return nil, fmt.Errorf("%w: its value is out of range", errNotShare)
	}
	return s, nil
}

// hash returns the truncated hash by which a sealed key identifies the value of the share with
// the given index.
func (v *shareValue) hash(index int) [shareHashSize]byte {
	sum := sha256.Sum256(slices.Concat([]byte{formatVersion, byte(index)}, v[:]))
	return [shareHashSize]byte(sum[:])
}
