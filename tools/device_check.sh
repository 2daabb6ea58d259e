#!/bin/bash
# Checks an accelerator on a machine without a network: `make device-wheels` elsewhere, copy the folder, then
# `make device-check` here. Needs Python with torch, numpy, scipy, safetensors, matplotlib and rich; takes under 9 minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} out=${OUT:-out/device}
mkdir -p "$out"
if ls .device/*.whl > /dev/null 2>&1; then
    packages=$out/packages
    # A wheel that is not for this Python is left out; what is missing then is named by the import that fails.
    for wheel in .device/*.whl; do
        "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$packages" "$wheel" 2> /dev/null || true
    done
    export PYTHONPATH=src:$packages
else
    export PYTHONPATH=src
fi
exec timeout 540 "$python" benchmarks/device.py --json "$out/device.json" --markdown "$out/device.md" \
    --out "$out" "$@"
