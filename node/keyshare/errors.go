package keyshare

import "errors"

var (
	// ErrNotShare is returned for text that is not a share, or is cut off, or
	// damaged where no line can be named.
	ErrNotShare = errors.New("not a share of a root key")
	// ErrVersion is returned for a share in a later format.
	ErrVersion = errors.New("share in a format that this version does not know")
	// ErrIncomplete is returned if lines are missing. More of them may be typed.
	ErrIncomplete = errors.New("share is not complete")
	// ErrMixed is returned for shares, or parts of a share, that were not made
	// together.
	ErrMixed = errors.New("shares of different splits do not go together")
	// ErrDuplicate is returned if one share is given twice.
	ErrDuplicate = errors.New("share given twice")
	// ErrTooFew is returned for fewer shares than the threshold.
	ErrTooFew = errors.New("too few shares")
	// ErrAltered is returned if a share is well-formed, but not the one that was
	// handed out. Somebody has changed it on purpose; or, one time in tens of
	// thousands, a line was typed so wrong that its checksum was right again.
	ErrAltered = errors.New("share is not the one that was handed out")
	// ErrOtherKey is returned if the shares are not those of the key that they
	// were expected to be of.
	ErrOtherKey = errors.New("shares of another root key")
)
