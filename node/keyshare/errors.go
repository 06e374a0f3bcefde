package keyshare

import "errors"

var (
	// errNotShare is returned for text that is not a share, is truncated, or is damaged in
	// a way that cannot be attributed to a line.
	errNotShare = errors.New("not a share of a root key")
	// errVersion is returned for a share in a later format.
	errVersion = errors.New("share in a format that this version does not support")
	// ErrIncomplete is returned if lines are missing.
	ErrIncomplete = errors.New("share is not complete")
	// errMixed is returned for shares, or parts of a share, that were not made
	// together.
	errMixed = errors.New("shares of different splits do not go together")
	// ErrDuplicate is returned if one share is given twice.
	ErrDuplicate = errors.New("share given twice")
	// errTooFew is returned for fewer shares than the threshold.
	errTooFew = errors.New("too few shares")
	// errAltered is returned for a well-formed share that does not match the sealed key: the
	// share was manipulated, or, with a probability of one in tens of thousands, a mistyped line
	// has a valid checksum.
	errAltered = errors.New("share differs from the one that was made")
	// ErrOtherKey is returned if the shares belong to another root key than expected.
	ErrOtherKey = errors.New("shares of another root key")
)
