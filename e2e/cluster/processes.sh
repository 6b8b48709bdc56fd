# processes.sh: in: a component's name; out: that one process on its machine, started, looked at or stopped. Sourced after machines.sh.
# shellcheck shell=bash

# launch MACHINE NAME COMMAND...: detached; its pid (in the machine's own counting) and its log carry the component's name
launch() {
  local machine=$1 name=$2
  shift 2
  # without the caller's environment: a proxy for the way to the internet is none for the way to the API server
  # shellcheck disable=SC2016 # the inner shell expands it
  on "$machine" setsid --fork env --ignore-environment PATH="$PATH" sh -c 'echo $$ >"$0"; exec "$@"' "$RUN/$name.pid" "$@" >>"$LOGS/$name.log" 2>&1 </dev/null
  wait_for 5 "$LOGS/$name.log" "$name" test -s "$RUN/$name.pid"
}

machine_of() { case $1 in *-node*) echo "${1##*-}" ;; *) echo cp ;; esac; }

running() {
  local pid
  pid=$(cat "$RUN/$1.pid" 2>/dev/null) && machine_alive "$(machine_of "$1")" && on "$(machine_of "$1")" kill -0 "$pid" 2>/dev/null
}

gone() { ! running "$1"; }

# stop NAME [SIGNAL]: returns when the process has ended; 10 s after a gentle signal it has no choice
stop() {
  local name=$1 signal=${2:-KILL} pid tries
  running "$name" || { rm -f "$RUN/$name.pid"; return 0; }
  pid=$(cat "$RUN/$name.pid")
  on "$(machine_of "$name")" kill "-$signal" "$pid"
  for ((tries = 0; tries < 100; tries++)); do
    gone "$name" && break
    sleep 0.1
  done
  gone "$name" || on "$(machine_of "$name")" kill -KILL "$pid"
  wait_for 10 "$LOGS/$name.log" "the end of $name" gone "$name"
  rm -f "$RUN/$name.pid"
}
