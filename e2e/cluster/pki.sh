# pki.sh: in: the cluster's addresses; out: in $PKI two authorities, every certificate they sign, and a kubeconfig per client. Sourced.
# shellcheck shell=bash

# -config: without the distribution's own, which makes every certificate an authority
request() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -config <(printf '[req]\ndistinguished_name=dn\n[dn]\n') "$@" 2>>"$LOGS/pki.log"; }

authority() { # NAME
  request -subj "/CN=sluice-$CLUSTER-$1" -keyout "$PKI/$1.key" -out "$PKI/$1.crt" \
    -addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign,cRLSign
}

certificate() { # AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]
  request -subj "$3" -keyout "$PKI/$2.key" -out "$PKI/$2.crt" -CA "$PKI/$1.crt" -CAkey "$PKI/$1.key" \
    -addext basicConstraints=CA:FALSE -addext keyUsage=digitalSignature -addext extendedKeyUsage=serverAuth,clientAuth ${4:+-addext "subjectAltName=$4"}
}

kubeconfig() { # NAME OUT
  cat >"$2" <<YAML
apiVersion: v1
kind: Config
clusters:
- {name: $CLUSTER, cluster: {server: "$API_SERVER", certificate-authority-data: $(base64 -w0 "$PKI/ca.crt")}}
users:
- {name: $1, user: {client-certificate-data: $(base64 -w0 "$PKI/$1.crt"), client-key-data: $(base64 -w0 "$PKI/$1.key")}}
contexts:
- {name: $CLUSTER, context: {cluster: $CLUSTER, user: $1}}
current-context: $CLUSTER
YAML
}

make_pki() {
  local name node
  mkdir -p "$PKI"
  authority ca
  # Loki's own authority is one that no pod is given by Kubernetes: who reaches the gateway over TLS was told of it
  authority loki-ca
  certificate loki-ca loki-gateway /CN=loki-gateway "DNS:loki-gateway.loki.svc,DNS:loki-gateway.loki.svc.cluster.local"
  certificate loki-ca loki-other-name /CN=loki-other-name "DNS:$GATEWAY_OTHER_NAME"
  certificate loki-ca loki-client "/CN=$GATEWAY_CERTIFIED"

  certificate ca apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$CP_IP,IP:$SERVICE_NET.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate ca kubelet-client /O=system:masters/CN=apiserver-kubelet
  certificate ca admin /O=system:masters/CN=admin
  for name in controller-manager scheduler proxy; do certificate ca "$name" "/CN=system:kube-$name"; done
  for node in "${NODES[@]}"; do certificate ca "$node" "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$(ip_of "$node")"; done
  for name in controller-manager scheduler proxy "${NODES[@]}"; do kubeconfig "$name" "$PKI/$name.kubeconfig"; done
  kubeconfig admin "$KUBECONFIG"

  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/accounts.key"
  openssl ec -in "$PKI/accounts.key" -pubout -out "$PKI/accounts.pub" 2>>"$LOGS/pki.log"
}
