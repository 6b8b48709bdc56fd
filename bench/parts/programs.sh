# programs: the agent, the limit program, the sink and the writer of lines, started, asked and stopped.

stop() { # ends a process of ours and waits for it
  if [[ -n ${1:-} ]]; then kill "$1" 2>/dev/null || true; wait "$1" 2>/dev/null || true; fi
}
fail() { echo "bench: $*" >&2; tail -n 5 "$work"/*.log >&2 2>/dev/null || true; exit 1; }
say() { echo "bench: $*" >&2; }
table() { tables+=("" "$1" "$(sed 's/[^|]//g; s/|/|---/g; s/---$//' <<<"$1")"); } # a head; its rows follow
row() { tables+=("$1"); }

build() { # as the images are built: static, each package by itself, so that none gets another's features
  for package in sluice-agent sluice-bench; do
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --quiet --release --locked --target $TARGET -p $package
  done
}

sink_start() { # [--count] [--tls FOLDER]
  taskset -c $LOAD_CPU "$BIN/sink" --listen "$SINK" "$@" >"$work/sink.log" 2>&1 & sink=$!
  scheme=http; if [[ $* = *--tls* ]]; then scheme=https; fi
  for _ in {1..50}; do ask figures >/dev/null && return; sleep 0.1; done
  fail "the sink did not start"
}
sink_stop() { stop "$sink"; sink=""; }
ask() { curl -skf "$scheme://$SINK/$1"; }
came() { ask figures | awk -v name="$1" '$1 == name { print $2 }'; }

document() { # [tls] [two]: limits so high that nothing but work takes time
  local high=$((1 << 34)) scheme=http tls='' outputs='"bench/sink"' tenants=sink tenant all=
  if [[ $* = *tls* ]]; then scheme=https tls=', "tls": {"ca": true, "serverName": "loki.test"}'; fi
  if [[ $* = *two* ]]; then outputs='"bench/sink", "bench/other"' tenants="other sink"; fi
  for tenant in $tenants; do
    all+="${all:+, }{\"name\": \"bench/$tenant\", \"uid\": \"$tenant\", \"generation\": 1, \"pushUrl\": \"$scheme://$SINK/loki/api/v1/push\", \"tenantId\": \"$tenant\"$tls,
   \"limits\": {\"rateBytesPerSecond\": $high, \"burstBytes\": $high, \"perStreamRateBytesPerSecond\": $high, \"perStreamBurstBytes\": $high}}"
  done
  cat >"$work/document.json" <<JSON
{"version": 1,
 "pipelines": [{"name": "bench/all", "uid": "bench", "generation": 1, "tenants": [$outputs], "pods": {"namespaces": [{"name": "bench"}]}}],
 "tenants": [$all]}
JSON
  mkdir -p "$work/credentials"
  printf '{"ca": "%s"}' "$(sed ':a; N; $!ba; s/\n/\\n/g' "$TLS/ca.pem")" >"$work/credentials/sink"
}

agent_start() { # a log root; each start with a state folder of its own
  local state=$work/state-$((++agents))
  mkdir -p "$state"
  taskset -c $MEASURED_CPU "$BIN/sluice-agent" --document "$work/document.json" --credentials-dir "$work/credentials" --log-root "$1" \
    --state-dir "$state" --listen "$AGENT" --node-name bench --allow-local-addresses >"$work/agent.log" 2>&1 & agent=$!
}
agent_stop() { stop "$agent"; agent=""; }
delivered() { curl -sf "http://$AGENT/metrics" | awk '/^sluice_agent_delivered_lines_total/ { sum += $NF } END { printf "%d", sum }'; }
await() { # lines, seconds: until the agent has that many acknowledged
  for ((i = 0; i < $2 * 5; i++)); do
    kill -0 "$agent" 2>/dev/null || fail "the agent ended"
    (($(delivered || true) >= $1)) && return
    sleep 0.2
  done
  fail "the agent delivered $(delivered || true) of $1 lines in $2 s"
}
write_paced() { # a log root, a rate, seconds, more flags: $writer writes, $lines is how many; the rate that it reached is in $work/rate
  lines=$(($2 * $3))
  taskset -c $LOAD_CPU "$BIN/lines" --log-root "$1" --shape json --files "$FILES" --lines $lines --rate "$2" "${@:4}" >"$work/rate" & writer=$!
}

cpu_of() { awk -v hertz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); print ($12 + $13) / hertz }' "/proc/$1/stat"; } # user and system seconds
kib_of() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }
mib() { awk -v kib="$1" 'BEGIN { printf "%.1f", kib / 1024 }'; }
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
per() { awk -v a="$1" -v b="$2" -v digits="$3" 'BEGIN { printf "%." digits "f", a / b }'; } # a quotient with so many digits

limit_cpu() { # log root, result in $cpu
  local times TIMEFORMAT='%3U %3S'
  times=$( { time taskset -c $MEASURED_CPU "$BIN/limit" --log-root "$1" --sink "$SINK" --node-name bench >&2; } 2>&1 ) || fail "limit: $times"
  cpu=$(awk '{ print $1 + $2 }' <<<"$times")
}
agent_cpu() { # log root, lines; results in $cpu and $peak
  agent_start "$1"
  await "$2" 300
  cpu=$(cpu_of "$agent") peak=$(kib_of "$agent" VmHWM)
  agent_stop
}

check() { # lines, times that each is to come: what the counting sink got; sets $gap, and $failed where it differs
  local distinct duplicated lost
  distinct=$(came distinct) duplicated=$(came duplicated)
  lost=$(($1 - distinct)) duplicated=$((duplicated - $1 * (${2:-1} - 1)))
  gap="$lost / $duplicated"
  say "delivery: $lost lost, $duplicated twice; $(ask figures | tr '\n' ' ')"
  if ((lost || duplicated || $(came unnumbered))); then failed=1; fi
}

watch_agent() { # until a process of ours ends: $anon and $file are the most that was seen, $percent of a core was used, $per_second requests came
  local from start requests now
  from=$(cpu_of "$agent") start=$EPOCHREALTIME requests=$(came requests) anon=0 file=0
  while kill -0 "$1" 2>/dev/null; do
    sleep 0.5
    now=$(kib_of "$agent" RssAnon); ((now > anon)) && anon=$now
    now=$(kib_of "$agent" RssFile); ((now > file)) && file=$now
  done
  local seconds; seconds=$(awk -v begin="$start" -v end="$EPOCHREALTIME" 'BEGIN { print end - begin }')
  percent=$(awk -v a="$from" -v b="$(cpu_of "$agent")" -v seconds="$seconds" 'BEGIN { printf "%.2f", 100 * (b - a) / seconds }')
  per_second=$(per $(($(came requests) - requests)) "$seconds" 1)
}

sizes() {
  local image found=
  printf '\n| image | MiB |\n|---|---|\n'
  for image in "$CACHE"/images/sluice-*.tar; do
    [[ -e $image ]] && found=1 && printf '| %s | %s |\n' "$(basename "$image" .tar)" "$(mib "$(($(stat -c %s "$image") / 1024))")"
  done
  [[ -n $found ]] || echo "| none built yet: make images | |"
}
