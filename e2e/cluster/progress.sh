# progress.sh: in: what is being done; out: one short line per step, and on failure what failed and where its log is. Sourced.
# shellcheck shell=bash

step() { printf '%5ss  %s\n' "$SECONDS" "$*"; }

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# wait_for SECONDS LOG WHAT COMMAND...: until COMMAND succeeds; its last words are in LOG when it never does
wait_for() {
  local deadline=$((SECONDS + $1)) log=$2 what=$3
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= deadline)); then
      tail -n 5 "$log" >&2 || true
      fail "$what did not come about in time; see $log"
    fi
    sleep 0.2
  done
}
