// Bodies on standard input, what Loki's own snappy decoder makes of them on standard output; each behind its
// length, four bytes, lowest first.
package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"os"

	"github.com/golang/snappy"
)

func main() {
	in, out := bufio.NewReader(os.Stdin), bufio.NewWriter(os.Stdout)
	for {
		var length uint32
		err := binary.Read(in, binary.LittleEndian, &length)
		if errors.Is(err, io.EOF) {
			break
		}
		check(err)
		body := make([]byte, length)
		_, err = io.ReadFull(in, body)
		check(err)
		raw, err := snappy.Decode(nil, body)
		check(err)
		check(binary.Write(out, binary.LittleEndian, uint32(len(raw))))
		_, err = out.Write(raw)
		check(err)
	}
	check(out.Flush())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
