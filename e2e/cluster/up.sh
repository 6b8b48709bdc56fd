# up.sh: in: the settings and the built tools; out: the cluster, running and ready. One that is healthy is kept, half a one is first taken down. Sourced.
# shellcheck shell=bash

api_ready() { curl --noproxy '*' --silent --fail --max-time 2 --cacert "$PKI/ca.crt" "$API_SERVER/readyz"; }
node_ready() { "$KUBE/kubectl" wait --for=condition=Ready --timeout=0 "node/$1"; }

healthy() {
  local component node
  for component in "${COMPONENTS[@]}"; do running "$component" || return 1; done
  api_ready && for node in "${NODES[@]}"; do node_ready "$node" || return 1; done && loki_answers && gateway_answers
}

up() {
  local node
  "$HERE/tools/build.sh"
  if healthy >/dev/null 2>&1; then
    step "cluster $CLUSTER runs"
    return
  fi
  [[ ! -e $STATE && ! -e /sys/class/net/$BRIDGE ]] || { step "cluster $CLUSTER is not whole: once more from nothing"; down; }
  mkdir -p "$LOGS" "$RUN"

  step "certificates"
  make_pki
  step "machines: ${MACHINES[*]}"
  make_bridge
  for node in "${MACHINES[@]}"; do make_machine "$node"; done
  route_from_host

  step "etcd, API server, containerd"
  start etcd
  start apiserver
  for node in "${NODES[@]}"; do
    make_node "$node"
    start "containerd-$node"
  done
  step "images"
  for node in "${NODES[@]}"; do
    wait_for 20 "$LOGS/containerd-$node.log" "containerd on $node" containerd_of "$node" version
    install_base_images "$node"
  done
  install_service_images node1

  wait_for 60 "$LOGS/apiserver.log" "the API server" api_ready
  step "controllers, scheduler, kubelets"
  start controller-manager
  start scheduler
  for node in "${NODES[@]}"; do start "proxy-$node"; start "kubelet-$node"; done
  for node in "${NODES[@]}"; do wait_for 60 "$LOGS/kubelet-$node.log" "$node" node_ready "$node"; done
  step "DNS, Loki, gateway"
  install_services
  wait_for_services
  step "cluster $CLUSTER is ready: KUBECONFIG=$KUBECONFIG"
}
