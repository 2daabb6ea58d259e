#!/bin/bash
# The study "small" on one accelerator without a network, in under 9 minutes: 16 runs of size small with ten times the
# samples, each evaluated there (studies/device.py says which settings there are).
#
#   make device-wheels && studies/device.sh pack ../shared   # here: wheels and recordings, into .device
#   OUT=folder studies/device.sh run                         # there: trains and evaluates until BUDGET_S (500) are over
#   studies/device.sh judge folder ../shared                 # here: unpacks results, evaluates encoders, analyses
set -euo pipefail
cd "$(dirname "$0")/.."
here=.venv/bin/python
[ -x "$here" ] || here=python3
python=${PYTHON:-$here} bundle=${BUNDLE:-.device/study.tar.gz}
work=${WORK:-out/device-study} budget=${BUDGET_S:-500}
export JOBS=${JOBS:-8}

use_wheels() { # those that are not for this Python are left out; an import then names what is missing
    export PYTHONPATH=src${PYTHONPATH:+:$PYTHONPATH}
    ls .device/*.whl > /dev/null 2>&1 || return 0
    for wheel in .device/*.whl; do
        "$python" -m pip install --quiet --no-index --no-deps --upgrade --target "$work/packages" "$wheel" 2> /dev/null || true
    done
    export PYTHONPATH=$PYTHONPATH:$work/packages
}

run() {
    local out=${OUT:-out/device-study/back} status=0
    mkdir -p "$work/data" "$out"
    [ ! -e "$bundle" ] || tar xzf "$bundle" -C "$work/data"
    export DATA=$work/data RUNS=$work/study OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(($(nproc) > JOBS ? $(nproc) / JOBS : 1))}
    use_wheels
    if [ -z "${STEPS:-}" ]; then
        STEPS=$("$python" studies/device.py steps $((budget - SECONDS)))
        export STEPS
    fi
    echo "== $STEPS steps a run, $((budget - SECONDS)) s left"
    timeout --signal=TERM --kill-after=20 $((budget > SECONDS ? budget - SECONDS : 1)) \
        "$python" -m melmask study run studies/device.py --data "$DATA" --out "$RUNS" --jobs "$JOBS" || status=$?
    echo "== ended with status $status after $SECONDS s"
    "$python" studies/device.py bring "$out"
}

case "${1:-}" in
    pack) use_wheels && DATA=$2 "$python" studies/device.py pack "$2" "$bundle" ;;
    run) run ;;
    judge)
        use_wheels
        DATA=$3 "$python" studies/device.py judge "$2" "$3"
        "$python" -m melmask study analyse studies/device.py --out "$2/study"
        ;;
    *) sed -n '2,8s/^# \{0,1\}//p' "$0" ;;
esac
