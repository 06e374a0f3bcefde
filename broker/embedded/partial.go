package embedded

// writeWhatFits stores as many messages of peers as there is space for, in order. ops are
// operations that could not be written together because of missing space. It returns the
// operations that are left, and whether any message was stored.
//
// Without it, all postponed messages would be tried in one transaction, which grows as more are
// accepted, and none would be stored although applications have consumed stored messages and so
// freed space.
func (w *writer) writeWhatFits(ops []op) (left []op, wrote bool) {
	for len(ops) > 0 && !w.reserve.missing {
		_ = w.db.truncateWAL() // the space of the write-ahead log is needed
		part, rest := splitRows(ops, w.roomForPeers())
		if len(part) == 0 || w.write(part) != nil {
			break
		}
		ops, wrote = rest, true
	}
	return ops, wrote
}

// roomForPeers returns how many bytes of messages of peers can be stored.
func (w *writer) roomForPeers() int64 {
	freeInFile, err := w.db.freeInFile()
	if err != nil {
		return 0
	}
	return w.disk.roomForPeers(freeInFile)
}

// splitRows divides operations that store messages of peers: part stores the first messages, of
// at most size bytes, and rest the others. It ends part before an operation of another kind.
func splitRows(ops []op, size int64) (part, rest []op) {
	for i, o := range ops {
		p, ok := o.(*publishOp)
		if !ok {
			return part, ops[i:]
		}
		n := 0
		for n < len(p.rows) && int64(p.rows[n].size()) <= size {
			size -= int64(p.rows[n].size())
			n++
		}
		switch {
		case n == len(p.rows):
			part = append(part, p)
		case n == 0:
			return part, ops[i:]
		default:
			first, second := p.splitAt(n)
			return append(part, first), append([]op{second}, ops[i+1:]...)
		}
	}
	return part, nil
}

// splitAt returns two operations that replace o: the first stores the first n messages. No more
// messages may be added to o.
func (o *publishOp) splitAt(n int) (first, second *publishOp) {
	var bytes int64
	for _, r := range o.rows[:n] {
		bytes += int64(r.size())
	}
	part := quantity{min(int64(n), o.part.messages), min(bytes, o.part.bytes)}
	first = &publishOp{publisher: o.publisher, batchNumber: o.batchNumber, rows: o.rows[:n], part: part}
	second = &publishOp{publisher: o.publisher, batchNumber: o.batchNumber, rows: o.rows[n:],
		part: quantity{o.part.messages - part.messages, o.part.bytes - part.bytes}}
	return first, second
}
