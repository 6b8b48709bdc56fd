# ways: what TLS and a second output cost, beside the same lines without.

measure_ways() {
  table "| 250-byte JSON, 30 files | agent, CPU-s per million lines read | beside the plain way | lost / twice |"
  local root=$work/logs lines=${LINES[json]} plain
  "$BIN/lines" --log-root "$root" --shape json --files 30 --lines "$lines"
  way "plain" 1; plain=$cpu
  way "TLS" 1 tls
  way "two outputs" 2 two
  document
  rm -rf "$root"
}

way() { # name, outputs, words of the document; the median of the rounds in $cpu
  local name=$1 outputs=$2 flags=() round
  if [[ $* = *tls* ]]; then flags=(--tls "$TLS"); fi
  document "${@:3}"
  rm -f "$work/way"
  sink_start "${flags[@]}"
  for ((round = 1; round <= ROUNDS; round++)); do
    agent_cpu "$root" $((lines * outputs))
    echo "$cpu" >>"$work/way"
  done
  sink_stop
  sink_start --count "${flags[@]}"
  agent_start "$root"; await $((lines * outputs)) 300; agent_stop
  check "$lines" "$outputs"
  sink_stop
  cpu=$(median <"$work/way")
  row "| $name | $(awk -v cpu="$cpu" -v n="$lines" 'BEGIN { printf "%.3f", cpu / n * 1e6 }') | $(per "$cpu" "${plain:-$cpu}" 2) | $gap |"
}
