# steady: memory, CPU and requests with nothing to do, with idle files, at a rate, at a first start, in an outage.

MEMORY_HEAD="| | anonymous, MiB | file-backed, MiB | resident, MiB | CPU, % of a core | requests per second | lost / twice |"
held() { row "| $1 | $(mib "$anon") | $(mib "$file") | $(mib $((anon + file))) | $percent | $per_second | $gap |"; }

measure_steady() {
  table "$MEMORY_HEAD"
  gap=''
  local root=$work/empty
  mkdir -p "$root"; sink_start --count; agent_start "$root"
  settle
  sleep "$IDLE_SECONDS" & watch_agent $!
  held "nothing to do"
  agent_stop; sink_stop

  root=$work/idle; sink_start --count
  "$BIN/lines" --log-root "$root" --shape json --files "$IDLE_FILES" --lines "$IDLE_FILES"
  agent_start "$root"; await "$IDLE_FILES" 600
  sleep 20 # a file is idle after 5 s, memory is given back after 10
  sleep "$IDLE_SECONDS" & watch_agent $!
  check "$IDLE_FILES"
  held "$IDLE_FILES idle files"
  agent_stop; sink_stop; rm -rf "$root"

  root=$work/paced; mkdir -p "$root"; sink_start --count
  agent_start "$root"; settle
  write_paced "$root" "$RATE" "$SECONDS_AT_RATE"; watch_agent "$writer"
  await "$lines" 30; check "$lines"
  held "$RATE lines/s over $FILES files, $SECONDS_AT_RATE s"
  agent_stop; sink_stop; rm -rf "$root"
}

settle() { sleep 2; kill -0 "$agent" 2>/dev/null || fail "the agent ended"; }

measure_outage() { # the sink answers 503 while lines come, and takes everything afterwards
  table "$MEMORY_HEAD"
  local root=$work/outage; mkdir -p "$root"; sink_start --count
  agent_start "$root"; settle
  ask refuse >/dev/null
  # So small that most files are deleted before Loki is back: what was in them is copied.
  write_paced "$root" "$RATE" "$OUTAGE_SECONDS" --rotate $((2 << 20)); watch_agent "$writer"
  gap=''; held "$OUTAGE_SECONDS s without Loki at $RATE lines/s"
  ask accept >/dev/null
  sleep 5 & watch_agent $!
  await "$lines" 300; check "$lines"
  held "the first 5 s after it"
  agent_stop; sink_stop; rm -rf "$root"
}

measure_backlog() { # containers with one file that is written, one rotated and three compressed
  table "| first start on | seconds | CPU-s per million lines | anonymous, MiB | file-backed, MiB | requests per second | lost / twice |"
  local root=$work/backlog lines=$((BACKLOG_MIB * (1 << 20) / 250)) begin from
  "$BIN/lines" --log-root "$root" --shape json --files "$FILES" --lines "$lines" --generations 5
  sink_start --count
  begin=$EPOCHREALTIME
  agent_start "$root"
  (await "$lines" 7200) & watch_agent $!
  wait $! || fail "the backlog was not sent"
  from=$(cpu_of "$agent")
  check "$lines"
  row "| $BACKLOG_MIB MiB of lines in $FILES containers | $(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.0f", b - a }') | $(awk -v cpu="$from" -v n="$lines" 'BEGIN { printf "%.3f", cpu / n * 1e6 }') | $(mib "$anon") | $(mib "$file") | $per_second | $gap |"
  agent_stop; sink_stop; rm -rf "$root"
}
