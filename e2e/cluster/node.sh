# node.sh: in: a node's name; out: its cgroups and, in <state>/<node>/etc, the settings of its containerd, kubelet, kube-proxy and pod network. Sourced.
# shellcheck shell=bash

cgroup_of() { echo "sluice-$CLUSTER-$1"; }

make_cgroups() {
  local name root=/sys/fs/cgroup controller
  name=$(cgroup_of "$1")
  if [[ -f $root/cgroup.controllers ]]; then
    for controller in cpu cpuset io memory pids; do echo "+$controller" >"$root/cgroup.subtree_control"; done
    mkdir -p "$root/$name"
  else
    for controller in "$root"/*/; do [[ -L ${controller%/} ]] || mkdir -p "$controller$name"; done
    # a new cpuset is empty, and no process may enter an empty one
    for controller in cpus mems; do cat "$root/cpuset/cpuset.$controller" >"$root/cpuset/$name/cpuset.$controller"; done
  fi
}

remove_cgroups() {
  local name dir
  name=$(cgroup_of "$1")
  for dir in /sys/fs/cgroup/"$name" /sys/fs/cgroup/*/"$name"; do [[ ! -d $dir ]] || find "$dir" -type d -delete; done
}

make_node() {
  local node=$1 etc=$STATE/$1/etc
  make_cgroups "$node"
  mkdir -p "$etc/cni" "$etc/manifests"

  # ptp, not bridge: a Service's answer must pass the node's own routing, or it comes from an address nobody asked
  cat >"$etc/cni/pods.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pods_of "$node")"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
JSON

  # restrict_oom_score_adj: root of a virtual machine may lack CAP_SYS_RESOURCE, and runc then dies without a word about it
  cat >"$etc/containerd.toml" <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$etc/cni"
TOML

  # the crash-loop settings make a crashed container come back soon; rotation every few seconds makes tests of it short
  cat >"$etc/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$node.crt
tlsPrivateKeyFile: $PKI/$node.key
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: /dev/null
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: $etc/manifests
cgroupDriver: cgroupfs
cgroupRoot: /$(cgroup_of "$node")
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 1s}
containerLogMaxSize: 1Mi
containerLogMaxFiles: 5
containerLogMonitorInterval: 3s
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
YAML

  cat >"$etc/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
mode: nftables
clusterCIDR: $POD_NET.0.0/16
hostnameOverride: $node
conntrack: {maxPerCore: 0}
YAML
}
