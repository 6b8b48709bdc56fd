# machines.sh: in: a machine's name (cp, node1, node2); out: that machine, made, entered or destroyed. Sourced after settings.sh.
# shellcheck shell=bash

# A machine is one process that sleeps, in network, mount, pid and host-name namespaces of its own. All that runs "on" it lives in these
# namespaces, so that killing the one process ends everything there, and the kernel itself takes away the mounts and the interfaces.

init_pid() { cat "$RUN/$1.init" 2>/dev/null; }

# the name in the command line guards against a pid that another process got after a reboot
machine_alive() {
  local pid
  pid=$(init_pid "$1") && [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == "sluice-$CLUSTER-$1 "* ]]
}

# on MACHINE COMMAND...: runs it there, with this terminal, these files and this exit code
on() {
  local pid
  pid=$(init_pid "$1") || fail "machine $1 of cluster $CLUSTER does not run"
  shift
  nsenter --target "$pid" --net --mount --pid --uts -- "$@"
}

make_bridge() {
  ip link add "$BRIDGE" type bridge
  ip address add "$HOST_IP/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
}

make_machine() {
  local name=$1 peer="sl-$CLUSTER-$1" pid node
  mkdir -p "$STATE/$name"
  # "ip netns" would remount /sys and hide the cgroups from the kubelet; the namespaces live as long as their process
  setsid --fork unshare --net --mount --pid --uts --fork --propagation private \
    bash "$HERE/machine-init.sh" "sluice-$CLUSTER-$name" "$STATE/$name" "$RUN/$name.init" >"$LOGS/$name.log" 2>&1 </dev/null
  wait_for 10 "$LOGS/$name.log" "machine $name" test -s "$RUN/$name.init"
  pid=$(init_pid "$name")
  ip link add "$peer" type veth peer name eth0 netns "$pid"
  ip link set "$peer" master "$BRIDGE" up
  on "$name" sh -c "ip address add $(ip_of "$name")/24 dev eth0 && ip link set eth0 up && ip route add default via $HOST_IP"
  # every machine knows the way to the others' pods, so this host need not forward anything
  for node in "${NODES[@]}"; do
    [[ $node == "$name" ]] || on "$name" ip route add "$(pods_of "$node")" via "$(ip_of "$node")"
  done
}

# the tests on this host ask pods and Services directly
route_from_host() {
  local node
  for node in "${NODES[@]}"; do ip route replace "$(pods_of "$node")" via "$(ip_of "$node")"; done
  ip route replace "$SERVICE_NET.0.0/16" via "$(ip_of node1)"
}

# found by name, not by pid file: it goes even when the state folder was removed before it
destroy_machine() {
  local name=$1 pid
  for pid in $(pgrep --full --exact "sluice-$CLUSTER-$name -P" || true); do
    kill -KILL "$pid"
    # it is gone only when the kernel has ended all that ran inside
    while [[ -e /proc/$pid ]]; do sleep 0.05; done
  done
  rm -f "$RUN/$name.init"
  ip link delete "sl-$CLUSTER-$name" 2>/dev/null || true
}
