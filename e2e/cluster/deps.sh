#!/bin/bash
# deps.sh: in: a Debian 12; out: the packages that tools, cluster and images need. Silent when none is missing.
set -euo pipefail

PACKAGES=(
  gcc g++ libc6-dev git python3 curl openssl procps ca-certificates            # to build and to ask
  containerd runc containernetworking-plugins nftables iproute2 conntrack  # a node
  catatonit busybox-static nginx-light                                     # what the images are made of
  buildah                                                                  # Sluice's own images
  strace                                                                   # to see what a test's process syncs
)

missing=()
for package in "${PACKAGES[@]}"; do
  [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

echo "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
{ apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1 ||
  { tail -n 5 "$log" >&2; echo "error: apt-get failed; see $log" >&2; exit 1; }
rm "$log"
