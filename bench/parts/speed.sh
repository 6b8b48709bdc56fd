# speed: CPU per line of the agent beside the limit program, by shape and number of files.

measure_speed() {
  table "| lines | limit, CPU-s per million | agent, CPU-s per million | ratio, median (least to most) | agent, million lines per CPU-s | peak resident, MiB | lost / twice |"
  local shape
  for shape in $SHAPES; do speed "${shape%:*}" "${shape#*:}"; done
}

speed() { # shape, files. A-B-A: each run of the agent is compared with the mean of the limit runs before and after it
  local shape=$1 files=$2 root=$work/logs lines=${LINES[$1]} before peaks=0 round million size
  million=$(per "$lines" 1000000 6)
  rm -f "$work/limit" "$work/agent" "$work/ratio"
  "$BIN/lines" --log-root "$root" --shape "$shape" --files "$files" --lines "$lines"
  size=$(head -n 1 "$root"/*_web-0_*/main/0.log | wc -c)
  sink_start
  limit_cpu "$root" # the page cache is warm after it; not counted
  limit_cpu "$root"; echo "$cpu" >>"$work/limit"; before=$cpu
  for ((round = 1; round <= ROUNDS; round++)); do
    agent_cpu "$root" "$lines"; local own=$cpu
    echo "$own" >>"$work/agent"; ((peak > peaks)) && peaks=$peak
    limit_cpu "$root"; echo "$cpu" >>"$work/limit"
    awk -v own="$own" -v a="$before" -v b="$cpu" 'BEGIN { print own / ((a + b) / 2) }' >>"$work/ratio"
    say "$shape over $files files, $round/$ROUNDS: limit $before s, agent $own s, limit $cpu s for $lines lines"
    before=$cpu
  done
  sink_stop
  deliver "$root" "$lines"
  row "$(awk -v shape="$shape" -v files="$files" -v million="$million" -v size="$size" -v limit="$(median <"$work/limit")" -v agent="$(median <"$work/agent")" \
    -v ratio="$(median <"$work/ratio")" -v low="$(sort -g "$work/ratio" | head -1)" -v high="$(sort -g "$work/ratio" | tail -1)" -v peak="$(mib "$peaks")" \
    -v gap="$gap" 'BEGIN { printf "| %s, %d bytes, %d files | %.3f | %.3f | %.2f (%.2f to %.2f) | %.2f | %s | %s |", shape, size, files, limit / million, agent / million, ratio, low, high, million / agent, peak, gap }')"
  rm -rf "$root"
}

deliver() { # the same bytes once more into a sink that counts lines; both programs must send the same
  local root=$1 lines=$2 program metadata=
  for program in limit agent; do
    sink_start --count
    if [[ $program = limit ]]; then limit_cpu "$root"; else agent_start "$root"; await "$lines" 300; agent_stop; fi
    check "$lines"
    if [[ $program = agent && $(came metadata) != "$metadata" ]]; then fail "the agent sent other structured metadata than the limit program"; fi
    metadata=$(came metadata)
    sink_stop
  done
}

measure_compression() { # `snap` and the agent's encoder in turn, by kind of lines
  tables+=("" "$(taskset -c $MEASURED_CPU "$BIN/snappy")")
}
