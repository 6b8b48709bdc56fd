#!/bin/bash
# generate.sh: in: crds/*.yaml, written by the operator; out: copies in the chart, which outlive a release, and in config/crd.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

chart=charts/sluice/templates/crds kustomize=config/crd
mkdir -p "$chart" "$kustomize"
rm -f "$chart"/*.yaml
for crd in crds/*.yaml; do
  name=$(basename "$crd")
  # a description may hold {{ }}, which is none of Helm's
  if grep -q '{{' "$crd"; then echo "$crd holds {{, which Helm would read" >&2; exit 1; fi
  awk '
    /^metadata:/ && !done { print; print "  annotations:"; print "    helm.sh/resource-policy: keep"
      print "    argocd.argoproj.io/sync-options: Prune=false,Delete=false"; done = 1; next }
    /^  annotations:/ && done { print "generate.sh: the definition has annotations already" >"/dev/stderr"; exit 1 }
    { print }' "$crd" >"$chart/$name"
  cp "$crd" "$kustomize/$name"
done
{
  echo "apiVersion: kustomize.config.k8s.io/v1beta1"
  echo "kind: Kustomization"
  echo "resources:"
  for crd in crds/*.yaml; do echo "- $(basename "$crd")"; done
} >"$kustomize/kustomization.yaml"
