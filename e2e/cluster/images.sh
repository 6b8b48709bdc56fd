# images.sh: in: programs of this machine, or an image's tar; out: the image in a node's containerd. Sourced after machines.sh.
# shellcheck shell=bash

APPLETS=(awk base64 cat chmod cp cut date dd df echo env expr false find grep gzip head hostname httpd id kill ln ls md5sum mkdir mkfifo mv nc nproc nslookup
  od printf ps pwd rm sed seq sh sha256sum sleep sort split stat sync tail tee test timeout touch tr true truncate uniq usleep wc wget xargs yes)

containerd_of() { local node=$1; shift; on "$node" ctr --namespace k8s.io "$@"; }

# install_image NODE NAME ENTRYPOINT FILE...: goes from files to the node without a stop on the disk
install_image() {
  local node=$1
  shift
  python3 "$HERE/image.py" "$@" | containerd_of "$node" images import - >>"$LOGS/images.log" 2>&1 || fail "image $1 on $node; see $LOGS/images.log"
}

install_base_images() {
  local links=() applet
  [[ -e $RUN/$1.base-images ]] && return
  for applet in "${APPLETS[@]}"; do links+=("/bin/$applet=->busybox"); done
  install_image "$1" localhost/pause:1 '["/catatonit", "-P"]' /catatonit="$(command -v catatonit)"
  install_image "$1" docker.io/library/busybox:1 '[]' /bin/busybox="$(command -v busybox)" "${links[@]}"
  touch "$RUN/$1.base-images"
}

install_service_images() {
  local nginx libraries
  nginx=$(command -v nginx || echo /usr/sbin/nginx)
  mapfile -t libraries < <(ldd "$nginx" | grep -oE '/[^ ]+' | sed 's/.*/&=&/')
  install_image "$1" "localhost/coredns:$COREDNS_VERSION" '["/coredns"]' /coredns="$(tool_dir coredns)/coredns"
  install_image "$1" localhost/nginx:1 '["/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;"]' /usr/sbin/nginx="$nginx" "${libraries[@]}"
  install_image "$1" "localhost/loki:$LOKI_VERSION" '["/loki"]' /loki="$(tool_dir loki)/loki"
}

# node_has NODE TAG CONFIG-DIGEST: the tag and the digest name one and the same image there
node_has() {
  containerd_of "$1" images ls | awk -v tag="$2" -v id="sha256:$3" '$1 == tag {a = $3} $1 == id {b = $3} END {exit !(a != "" && a == b)}'
}

# import_image TAR: to every node that has not got exactly this one
import_image() {
  local tag digest node
  [[ -r ${1:-} ]] || fail "there is no image \"${1:-}\"; \"make images\" writes Sluice's own"
  read -r tag digest < <(tar -xOf "$1" manifest.json | python3 -c 'import json, sys; image = json.load(sys.stdin)[0]; print(image["RepoTags"][0], image["Config"].removesuffix(".json"))')
  for node in "${NODES[@]}"; do
    if node_has "$node" "$tag" "$digest"; then
      step "$node has $tag"
    else
      containerd_of "$node" images import - <"$1" >>"$LOGS/images.log" 2>&1 || fail "import of $tag to $node; see $LOGS/images.log"
      step "$node takes $tag"
    fi
  done
}
