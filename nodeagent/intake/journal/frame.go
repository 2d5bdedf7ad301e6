// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A frame is its payload's length, a checksum (both 32 bits, little endian), its kind and the payload. The checksum is
// CRC-32C (RFC 3720) over the checksum of the frame before, the kind and the payload: a frame that is damaged, missing or
// of another time than its predecessor breaks the chain.
const headSize = 9

// maxPayload is far more than a record may have, so that a damaged length makes nobody allocate much.
const maxPayload = 4 << 20

// frameKind says what a payload is.
type frameKind byte

const (
	frameOrigin frameKind = 'o' // who wrote the file, as text; the first frame
	frameChange frameKind = 'c' // a relayv1.Change
	frameMark   frameKind = 'm' // a relayv1.Batch without changes: all before it is a whole state
)

// errTorn is what reading ends with where the chain is broken.
var errTorn = errors.New("the file is damaged or was cut off")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(before uint32, kind frameKind, payload []byte) uint32 {
	var head [5]byte
	binary.LittleEndian.PutUint32(head[:4], before)
	head[4] = byte(kind)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, payload)
}

// chain writes frames, each bound to the one before.
type chain struct{ sum uint32 }

// add appends a frame to buf.
func (c *chain) add(buf []byte, kind frameKind, payload []byte) []byte {
	c.sum = checksum(c.sum, kind, payload)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(payload)))
	buf = binary.LittleEndian.AppendUint32(buf, c.sum)
	buf = append(buf, byte(kind))
	return append(buf, payload...)
}

// next reads the next frame into buf, which grows as needed. It gives io.EOF at the end of a file that ends with a frame,
// and errTorn where the chain is broken.
func (c *chain) next(r io.Reader, buf []byte) (frameKind, []byte, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, buf, errTorn
	} else if err != nil {
		return 0, buf, err
	}
	size, want, kind := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:]), frameKind(head[8])
	if size > maxPayload {
		return 0, buf, errTorn
	}
	if int(size) > cap(buf) {
		buf = make([]byte, size)
	}
	buf = buf[:size]
	if _, err := io.ReadFull(r, buf); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return 0, buf, errTorn
	} else if err != nil {
		return 0, buf, err
	}
	sum := checksum(c.sum, kind, buf)
	if sum != want {
		return 0, buf, errTorn
	}
	switch kind {
	case frameOrigin, frameChange, frameMark:
	default:
		return 0, buf, fmt.Errorf("%w: frame of kind %q", errTorn, kind)
	}
	c.sum = sum
	return kind, buf, nil
}
