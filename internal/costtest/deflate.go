package costtest

// Deflate returns compressed data of about the given size that decompresses to nothing.
// Each of its blocks has code tables of its own, with the longest codes. It causes the
// most work and memory that a decompressor can need for its size.
func Deflate(size int) []byte {
	// 16 codes of 15 bits, one of 11, and as many of 10 bits as make 286 in total with the
	// few short ones that complete them.
	var lengths []int
	left := 1 << 15
	add := func(bits int) {
		lengths = append(lengths, bits)
		left -= 1 << (15 - bits)
	}
	for range 16 {
		add(15)
	}
	add(11)
	for len(lengths) < 270 {
		add(10)
	}
	for bits := 1; bits < 10; bits++ {
		for left >= 1<<(15-bits) {
			add(bits)
		}
	}
	var w bitWriter
	for len(w.data) < size {
		w.emptyBlock(lengths, false)
	}
	w.emptyBlock(lengths, true)
	w.bits(0, 7) // the last byte
	return w.data
}

// A bitWriter writes bits, the least significant one of each byte first.
type bitWriter struct {
	data []byte
	rest uint64
	n    int
}

func (w *bitWriter) bits(v uint64, n int) {
	w.rest |= v << w.n
	for w.n += n; w.n >= 8; w.n -= 8 {
		w.data = append(w.data, byte(w.rest))
		w.rest >>= 8
	}
}

// code writes a Huffman code, the most significant bit first.
func (w *bitWriter) code(v uint64, n int) {
	for i := n - 1; i >= 0; i-- {
		w.bits(v>>i&1, 1)
	}
}

// emptyBlock writes a block (RFC 1951, section 3.2.7) with the code lengths given for
// literals, two distances, and no content.
func (w *bitWriter) emptyBlock(lengths []int, last bool) {
	if last {
		w.bits(1, 1)
	} else {
		w.bits(0, 1)
	}
	w.bits(2, 2)
	w.bits(uint64(len(lengths)-257), 5)
	w.bits(1, 5)
	// The lengths themselves are coded: 0 to 13 in 4 bits, 14 to 17 in 5.
	w.bits(15, 4)
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		switch {
		case symbol <= 13:
			w.bits(4, 3)
		case symbol <= 17:
			w.bits(5, 3)
		default:
			w.bits(0, 3)
		}
	}
	length := func(symbol int) {
		if symbol <= 13 {
			w.code(uint64(symbol), 4)
		} else {
			w.code(uint64(28+symbol-14), 5)
		}
	}
	all := append(append([]int(nil), lengths...), 1, 1)
	for i := 0; i < len(all); {
		run := 1
		for run < 7 && i+run < len(all) && all[i+run] == all[i] {
			run++
		}
		length(all[i])
		if run > 3 { // repeat the previous length 3 to 6 times
			length(16)
			w.bits(uint64(run-4), 2)
			i += run
		} else {
			i++
		}
	}
	w.code(endOfBlock(lengths))
}

// endOfBlock returns the code of symbol 256 (RFC 1951, section 3.2.2).
func endOfBlock(lengths []int) (code uint64, n int) {
	const symbol = 256
	n = lengths[symbol]
	for bits := 1; bits < n; bits++ {
		for _, l := range lengths {
			if l == bits {
				code++
			}
		}
		code <<= 1
	}
	for _, l := range lengths[:symbol] {
		if l == n {
			code++
		}
	}
	return code, n
}
