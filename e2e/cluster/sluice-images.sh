#!/bin/bash
# sluice-images.sh: in: the workspace; out: in the cache, images/sluice-agent-<version>.tar and sluice-operator-<version>.tar, each with its size.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$HERE/settings.sh"
. "$HERE/progress.sh"
cd "$HERE/../.."

TARGET=x86_64-unknown-linux-gnu
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(make --silent target-dir)}
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
mkdir -p "$CACHE/images"
# one of two waits, and finds it done
exec 9>"$CACHE/images.lock"
flock 9
work=$(mktemp -d)
context=$work/context
mkdir "$context"
trap 'rm -rf "$work"' EXIT

# a store that ends with this script: the machine's engine, if it has one, need not know
engine() { buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs "$@"; }

for part in agent operator; do
  name=sluice-$part binary=$CARGO_TARGET_DIR/$TARGET/release/sluice-$part tar=$CACHE/images/sluice-$part-$version.tar
  step "building $name; some minutes when its sources are new"
  # one package at a time: built together, each would get the other's features as well
  RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target $TARGET -p "$name"
  if [[ ! $tar -nt $binary || ! $tar -nt $part/Containerfile ]]; then
    cp "$binary" /etc/ssl/certs/ca-certificates.crt "$context"
    # a fixed time: the same content is the same image, and the nodes need not take it again
    engine build --quiet --isolation chroot --timestamp 0 --file "$part/Containerfile" --tag "localhost/$name:$version" "$context" >/dev/null
    rm -f "$tar.new"
    engine push --quiet "localhost/$name:$version" "docker-archive:$tar.new:localhost/$name:$version"
    mv "$tar.new" "$tar"
  fi
  step "localhost/$name:$version  $(du --apparent-size --human-readable "$tar" | cut -f1)"
done
