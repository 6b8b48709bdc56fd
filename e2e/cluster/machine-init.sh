# machine-init.sh NAME ROOT PIDFILE: in: fresh namespaces and a machine's own folder; out: its mounts, its pid as the host sees it, a process that sleeps and reaps.
# shellcheck shell=bash
set -euo pipefail
name=$1 root=$2 pidfile=$3

# read before the machine's own /proc is mounted: the old one still shows the host's numbers
read -r pid _ </proc/self/stat
mount -t proc proc /proc
hostname "${name##*-}"
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1

# where kubelet, containerd and agent keep things: the same paths on every machine, another folder behind them
for folder in run/containerd var/lib/{cni,containerd,kubelet,loki,sluice} var/log/{containers,pods}; do
  mkdir -p "/$folder" "$root/$folder"
  mount --bind "$root/$folder" "/$folder"
done
# the kubelet hands mounts to containers and back
mount --make-rshared /

cd /
echo "$pid" >"$pidfile.new"
mv "$pidfile.new" "$pidfile"
exec -a "$name" catatonit -P
