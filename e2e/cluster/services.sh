# services.sh: in: a cluster whose nodes are ready; out: CoreDNS, Loki and its gateway in it. Sourced.
# shellcheck shell=bash

# only these names are filled in: nginx has variables of its own that look the same
manifest() {
  sed -e "s/\${DNS_IP}/$DNS_IP/; s/\${LOKI_IP}/$LOKI_IP/; s/\${GATEWAY_IP}/$GATEWAY_IP/" \
    -e "s/\${COREDNS_VERSION}/$COREDNS_VERSION/; s/\${LOKI_VERSION}/$LOKI_VERSION/" "$HERE/manifests/$1.yaml"
}

gateway_secret() {
  local user
  "$KUBE/kubectl" create secret generic loki-gateway --namespace loki --dry-run=client --output yaml \
    --from-file=tls.crt="$PKI/loki-gateway.crt" --from-file=tls.key="$PKI/loki-gateway.key" \
    --from-file=other-name.crt="$PKI/loki-other-name.crt" --from-file=other-name.key="$PKI/loki-other-name.key" --from-file=ca.crt="$PKI/loki-ca.crt" \
    --from-file=tokens=<(echo "\"Bearer ${GATEWAY_TOKEN#*:}\" ${GATEWAY_TOKEN%%:*};") \
    --from-file=htpasswd=<(for user in "${GATEWAY_USERS[@]}"; do echo "${user%%:*}:$(openssl passwd -apr1 "${user#*:}")"; done)
}

install_services() {
  { manifest coredns; echo ---; manifest loki; echo ---; manifest gateway; echo ---; gateway_secret; } |
    "$KUBE/kubectl" apply --server-side --filename - >>"$LOGS/services.log" 2>&1 || fail "the manifests were refused; see $LOGS/services.log"
}

loki_answers() { curl --noproxy '*' --silent --fail --max-time 2 "http://$LOKI_IP:3100/ready"; }
gateway_answers() { curl --noproxy '*' --silent --fail --max-time 2 "http://$GATEWAY_IP/"; }
dns_answers() { on "$1" busybox nslookup loki.loki.svc.cluster.local "$DNS_IP"; }

wait_for_services() {
  local node
  for node in "${NODES[@]}"; do wait_for 60 "$LOGS/kubelet-node1.log" "DNS on $node" dns_answers "$node"; done
  wait_for 60 "$LOGS/kubelet-node1.log" "the gateway" gateway_answers
  wait_for 60 "$LOGS/kubelet-node1.log" "Loki" loki_answers
}
