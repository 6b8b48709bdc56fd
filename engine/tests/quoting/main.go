// Command quoting reads lines of JSON, each a value and how it was quoted, and fails where Go's
// strconv.Unquote does not read the value back, or where Prometheus' lexer, which walks over runes and takes
// U+FFFD for invalid UTF-8, would stop.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"unicode/utf8"
)

func main() {
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(nil, 16<<20)
	lines := 0
	for scanner.Scan() {
		lines++
		var pair [2]string
		if err := json.Unmarshal(scanner.Bytes(), &pair); err != nil {
			fail("line %d is no pair: %v", lines, err)
		}
		value, quoted := pair[0], pair[1]
		read, err := strconv.Unquote(quoted)
		if err != nil || read != value {
			fail("%s is read as %+q (%v), not as %+q", quoted, read, err, value)
		}
		for _, r := range quoted {
			if r == utf8.RuneError {
				fail("%+q holds U+FFFD unescaped", quoted)
			}
		}
	}
	if err := scanner.Err(); err != nil {
		fail("%v", err)
	}
	fmt.Println(lines)
}

func fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(1)
}
