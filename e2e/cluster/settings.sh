# settings.sh: in: CLUSTER and any of the variables below from the environment; out: names, addresses and folders of that one cluster. Sourced.
# shellcheck shell=bash disable=SC2034 # the scripts that source this file use the variables

CLUSTER=${CLUSTER:-test}
case $CLUSTER in
  test) number=0 ;;
  demo) number=1 ;;
  *) number=${SLUICE_CLUSTER_NUMBER:?"cluster \"$CLUSTER\" is neither test nor demo: give it a SLUICE_CLUSTER_NUMBER from 2 to 9 of its own"} ;;
esac
# the kernel allows an interface 15 characters, and ours are sl-<cluster>-node1
[[ $CLUSTER =~ ^[a-z][a-z0-9]{0,5}$ ]] || { echo "cluster name \"$CLUSTER\": at most 6 letters and digits, please" >&2; exit 2; }

BRIDGE=${SLUICE_BRIDGE:-sl-$CLUSTER}
NODE_NET=${SLUICE_NODE_NET:-172.30.$number}         # the first three bytes of a /24
POD_NET=${SLUICE_POD_NET:-10.$((240 + number))}     # the first two bytes of a /16, one /24 of it per node
SERVICE_NET=${SLUICE_SERVICE_NET:-10.$((90 + number))}

NODES=(node1 node2)
MACHINES=(cp "${NODES[@]}")                         # cp carries the control plane
HOST_IP=$NODE_NET.1
CP_IP=$NODE_NET.10
API_SERVER=https://$CP_IP:6443
DNS_IP=$SERVICE_NET.0.10
LOKI_IP=$SERVICE_NET.0.20
GATEWAY_IP=$SERVICE_NET.0.21
ip_of() { [[ $1 == cp ]] && echo "$CP_IP" || echo "$NODE_NET.1${1#node}"; }
pods_of() { echo "$POD_NET.${1#node}.0/24"; }

CACHE=${SLUICE_CACHE:-$HOME/.cache/sluice}
STATE=${SLUICE_STATE:-/var/tmp/sluice}/$CLUSTER
PKI=$STATE/pki
LOGS=$STATE/logs
RUN=$STATE/run                                      # pid files
export KUBECONFIG=$STATE/kubeconfig

# one password per user, for tests and for the demo; the gateway gets their hashes
GATEWAY_USERS=(ops:ops-password dev:dev-password)
# its other ways in: the name of a client certificate, a bearer token, and the name that only tls.serverName finds
GATEWAY_CERTIFIED=certified
GATEWAY_TOKEN=tokened:a-token
GATEWAY_OTHER_NAME=loki.example.internal
