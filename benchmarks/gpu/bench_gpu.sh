#!/usr/bin/env bash
# Runs the GPU benchmark on a host without network: bench_gpu.sh OUT SECONDS [STEP…]
#
# What gather.py packed was unpacked into $GPU_WORK (default /tmp/gpu) by unpack.py. SECONDS is for all steps together; what does not fit is
# left out and said so. OUT gets results.jsonl (a line as soon as a figure is known), results.md and log.txt.
# GPU_PYTHON is the Python that has torch (default python3), GPU_REHEARSE=1 takes tiny shapes.
set -u
out=$1 seconds=$2
shift 2
steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(machine reference correct seven ray shapes)
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
work=${GPU_WORK:-/tmp/gpu}
python=${GPU_PYTHON:-python3}
mkdir -p "$out" "$work/last"
# What a call before this one found, such as the matrix rate, is known to this one.
[ -f "$out/results.jsonl" ] || { [ -f "$work/last/results.jsonl" ] && cp "$work/last/results.jsonl" "$out/"; }
# What the host has comes first in its own site-packages only where the packs lack it.
[ -z "${GPU_REHEARSE:-}" ] && export PYTHONPATH="$work/engine:$work/product:$work/ray${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH="$root:$here${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 XDG_CACHE_HOME="$work/cache" VLLM_CACHE_ROOT="$work/cache/vllm" VLLM_LOGGING_LEVEL="${VLLM_LOGGING_LEVEL:-INFO}"
export RAY_USAGE_STATS_ENABLED=0 TOKENIZERS_PARALLELISM=false
more=()
[ -f "$work/WDCT.csv" ] && more+=(--data "$work/WDCT.csv")
[ -f "$work/model.gguf" ] && more+=(--model "$work/model.gguf")
[ -n "${GPU_REHEARSE:-}" ] && more+=(--rehearse)
# The most that a step may take, so that one that hangs leaves time for the next.
declare -A most=([machine]=45 [reference]=70 [correct]=150 [seven]=270 [ray]=170 [shapes]=300)
began=$SECONDS
for step in "${steps[@]}"; do
    left=$((seconds - (SECONDS - began)))
    limit=${most[$step]}
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -lt 15 ]; then
        echo "{\"step\": \"$step\", \"what\": \"left out\", \"left_s\": $left}" | tee -a "$out/results.jsonl"
        continue
    fi
    echo "== $step, at most $limit s" | tee -a "$out/log.txt"
    timeout -k 5 "$limit" "$python" "$here/bench_gpu.py" "$step" --out "$out" --work "$work" --seconds "$((limit - 5))" "${more[@]}" \
        2>>"$out/log.txt"
    code=$?
    [ "$code" -ne 0 ] && echo "{\"step\": \"$step\", \"what\": \"step failed\", \"exit_code\": $code}" | tee -a "$out/results.jsonl"
    sleep 1 # until an engine's process has given the GPU's memory back
done
"$python" "$here/bench_gpu.py" table --out "$out" --work "$work" 2>>"$out/log.txt"
cp "$out/results.jsonl" "$work/last/"
tail -c 3000 "$out/log.txt" >&2
