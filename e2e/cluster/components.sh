# components.sh: in: a component's name; out: the command line that runs it. Sourced after processes.sh; $KUBE is the folder of Kubernetes' programs.
# shellcheck shell=bash

COMPONENTS=(etcd apiserver controller-manager scheduler)
for node in "${NODES[@]}"; do COMPONENTS+=("containerd-$node" "proxy-$node" "kubelet-$node"); done

# start NAME: containerd-node1, proxy-node1, kubelet-node1 run on their node, the others on the control plane's machine
start() {
  local name=$1
  [[ " ${COMPONENTS[*]} " == *" $name "* ]] || fail "no component \"$name\"; there are: ${COMPONENTS[*]}"
  running "$name" && return
  rm -f "$RUN/$name.pid"
  if [[ $name == *-node* ]]; then "run_${name%-*}" "${name##*-}"; else "run_$name"; fi
}

run_etcd() {
  # nothing here outlives the cluster, and fsync would be the slowest part of it
  launch cp etcd "$KUBE/etcd" --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
}

run_apiserver() {
  launch cp apiserver "$KUBE/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$CP_IP" --secure-port=6443 --service-cluster-ip-range="$SERVICE_NET.0.0/16" --allow-privileged \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --client-ca-file="$PKI/ca.crt" \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/accounts.pub" --service-account-signing-key-file="$PKI/accounts.key" \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" --kubelet-certificate-authority="$PKI/ca.crt" \
    --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file="$HERE/manifests/audit.yaml" --audit-log-path="$LOGS/audit.log"
}

run_controller-manager() {
  launch cp controller-manager "$KUBE/kube-controller-manager" --kubeconfig="$PKI/controller-manager.kubeconfig" --leader-elect=false \
    --service-account-private-key-file="$PKI/accounts.key" --root-ca-file="$PKI/ca.crt" --use-service-account-credentials \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key"
}

run_scheduler() {
  launch cp scheduler "$KUBE/kube-scheduler" --kubeconfig="$PKI/scheduler.kubeconfig" --leader-elect=false
}

run_containerd() {
  launch "$1" "containerd-$1" containerd --config "$STATE/$1/etc/containerd.toml" --log-level warn
}

run_proxy() {
  launch "$1" "proxy-$1" "$KUBE/kube-proxy" --config="$STATE/$1/etc/proxy.yaml"
}

run_kubelet() {
  launch "$1" "kubelet-$1" "$KUBE/kubelet" --config="$STATE/$1/etc/kubelet.yaml" --kubeconfig="$PKI/$1.kubeconfig" \
    --hostname-override="$1" --node-ip="$(ip_of "$1")"
}
