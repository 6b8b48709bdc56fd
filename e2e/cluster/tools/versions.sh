# versions.sh: in: $CACHE; out: the tools' versions, and the folder of each (tool_dir NAME). Sourced.
# shellcheck shell=bash disable=SC2034

KUBE_VERSION=1.34.4
LOKI_VERSION=3.7.8
COREDNS_VERSION=1.14.7
HELM_VERSION=3.22.0

tool_dir() {
  local version=${1^^}_VERSION
  local dir=$CACHE/$1-${!version}
  # where the main program is ours, its text is part of what was built
  [[ ! -f $HERE/tools/$1.go ]] || dir+=-$(sha256sum <"$HERE/tools/$1.go" | cut -c1-8)
  echo "$dir"
}
KUBE=$(tool_dir kube)
