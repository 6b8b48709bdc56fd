# delay: from a line's write to the answer that acknowledges it, by the sink's clock, which is the writer's.

ROTATE_BYTES=$((10 << 20)) # containerLogMaxSize

measure_delay() {
  table "| lines/s over $FILES files | written | rotated | p50, ms | p99, ms | lost / twice |"
  local rate rotated written root=$work/delay flags
  for rate in $DELAY_RATES; do
    for rotated in no yes; do
      flags=()
      # At a low rate at least twice in the time.
      if [[ $rotated = yes ]]; then flags=(--rotate $(least $ROTATE_BYTES $((rate * DELAY_SECONDS * 250 / FILES / 3)))); fi
      mkdir -p "$root"; sink_start --count
      agent_start "$root"; settle
      write_paced "$root" "$rate" "$DELAY_SECONDS" "${flags[@]}"
      wait "$writer" || fail "the writer of lines ended early"
      await "$lines" 60; check "$lines"
      written=$(<"$work/rate")
      # A slower writer would see shorter delays.
      ((written * 100 >= rate * 95)) || failed=1
      row "| $rate | $written | $rotated | $(came delay_p50_ms) | $(came delay_p99_ms) | $gap |"
      agent_stop; sink_stop; rm -rf "$root"
    done
  done
}

least() { if (($1 < $2)); then echo "$1"; else echo "$2"; fi; }
