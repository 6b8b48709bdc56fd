# down.sh: in: a cluster, whole or half; out: nothing of it: no process, mount, interface, route, cgroup or file. Sourced.
# shellcheck shell=bash

down() {
  local machine node
  for machine in "${MACHINES[@]}"; do destroy_machine "$machine"; done
  for node in "${NODES[@]}"; do remove_cgroups "$node"; done
  ip link delete "$BRIDGE" 2>/dev/null || true
  # a mount below would mean that a machine still lives: rather leave the files than empty what is mounted
  ! grep -q " $STATE/" /proc/self/mountinfo || fail "something is still mounted below $STATE"
  rm -rf "$STATE"
  step "cluster $CLUSTER is gone"
}
