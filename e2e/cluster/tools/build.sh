#!/bin/bash
# build.sh: in: Go modules; out: kube, loki, coredns and helm in the cache, each built only if it is missing. Half a build is never left there.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$HERE/settings.sh"
. "$HERE/progress.sh"
. "$HERE/tools/versions.sh"

missing() { [[ ! -d $(tool_dir "$1") ]]; }

if [[ $# -ne 1 ]]; then
  [[ $# -gt 0 ]] || set -- kube loki coredns helm
  # at once: a large package keeps one core busy for minutes. Loki first: its tests wait more than they work, so the others
  # are built meanwhile.
  builds=() failed=0
  for tool in "$@"; do
    less=9; [[ $tool != loki ]] || less=0
    nice -n $less "${BASH_SOURCE[0]}" "$tool" & builds+=($!)
  done
  for build in "${builds[@]}"; do wait "$build" || failed=1; done
  exit $failed
fi
tool=$1
missing "$tool" || exit 0

# of two that want it one builds, and the other finds it there
mkdir -p "$CACHE"
[[ ${SLUICE_BUILDING:-} == "$tool" ]] || SLUICE_BUILDING=$tool exec flock --close "$CACHE/$tool.lock" "${BASH_SOURCE[0]}" "$tool"
missing "$tool" || exit 0

# what a killed build has left
rm -rf "$CACHE/building.$tool".*
work=$(mktemp -d "$CACHE/building.$tool.XXXXXX")
trap 'rm -rf "$work"' EXIT
log=$CACHE/$tool.log
: >"$log"

module_dir() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p'; }

# build NAME PACKAGE LDFLAGS: from the go.mod here, into the cache in one step
build() {
  # "go mod tidy" would fetch what only the modules' tests need; compilers that collect less garbage
  GOGC=400 go build -mod=mod -buildvcs=false -trimpath -ldflags "-s -w $3" -o "$work/$1.out/$1" "$2"
}

build_kube() {
  local source version=k8s.io/component-base/version minor=${KUBE_VERSION#1.}
  source=$(module_dir "k8s.io/kubernetes@v$KUBE_VERSION")
  cp "$HERE/tools/kube.go" main.go
  {
    printf 'module kube\n%s\nrequire k8s.io/kubernetes v%s\n' "$(grep -E '^go ' "$source/go.mod")" "$KUBE_VERSION"
    # Kubernetes requires its own parts as v0.0.0, which only its own tree can resolve
    sed -nE "s#^\s*(k8s.io/[a-z0-9-]+) v0\.0\.0\$#replace \1 => \1 v0.${KUBE_VERSION#1.}#p" "$source/go.mod" | sort -u
  } >go.mod
  build kube . "-X $version.gitVersion=v$KUBE_VERSION -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}"
  for name in etcd kube-{apiserver,controller-manager,scheduler,proxy} kubelet kubectl; do ln -s kube "$work/kube.out/$name"; done
}

# module_tool NAME MODULE VERSION PACKAGE: with the replacements that the module's authors build with
module_tool() {
  local source
  source=$(module_dir "$2@v$3")
  {
    printf 'module %s\n%s\nrequire %s v%s\n' "$1" "$(grep -E '^go ' "$source/go.mod")" "$2" "$3"
    grep -E '^replace [^(]' "$source/go.mod" | grep -v '=> \./' || true
  } >go.mod
  CGO_ENABLED=0 build "$1" "$4" ""
}

build_loki() { module_tool loki github.com/grafana/loki/v3 "$LOKI_VERSION" github.com/grafana/loki/v3/cmd/loki; }
build_coredns() {
  cp "$HERE/tools/coredns.go" main.go
  module_tool coredns github.com/coredns/coredns "$COREDNS_VERSION" .
}
build_helm() { module_tool helm helm.sh/helm/v3 "$HELM_VERSION" helm.sh/helm/v3/cmd/helm; }

declare -A minutes=([kube]=5 [loki]=5 [coredns]=1 [helm]=1)
dir=$(tool_dir "$tool")
step "building ${dir##*/} from Go modules, about ${minutes[$tool]} min, once"
mkdir "$work/$tool"
# a command whose failure is tested would run without "set -e", so the build is a script of its own
(cd "$work/$tool" && "build_$tool") >>"$log" 2>&1 &
wait $! || { tail -n 5 "$log" >&2; fail "building $tool failed; see $log"; }
mv -T "$work/$tool.out" "$dir"
step "$tool is ready"
