#!/usr/bin/env bash
# The main job, from recordings to an encoder and its evidence: what `make quickstart` runs.
#   examples/quickstart.sh                   on the built-in corpus
#   examples/quickstart.sh /my/recordings    on a folder
#   examples/quickstart.sh /my/table.csv     on a manifest path,label[,fold][,group], with its labels as the task
# Calling it again resumes where it was stopped. STEPS and OUT may be set.
set -euo pipefail

data=${1:-}
steps=${STEPS:-1200}
say() { if [[ -t 1 ]]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
left_out=3 # the exit status of a command that worked and says which recordings it left out
run() { printf '$'; printf ' %q' "$@"; echo; "$@" || (($? == left_out)); }

if [[ -z $data ]]; then
  out=${OUT:-out/quickstart}
  say "the built-in corpus: sampled instruments and synthesised speech"
  run melmask demo --out "$out/corpus"
  sources=("$out"/corpus/{instruments,chroma,words,speech_other}.csv)
  tasks=("$out"/corpus/{instruments,chroma,words}.csv)
  # No clip of the test folds is trained on.
  settings=(--exclude instruments:5 chroma:5 words:5)
  folds=(--test-folds 5)
else
  out=${OUT:-out/quickstart-$(basename "${data%.csv}")}
  sources=("$data")
  tasks=() settings=() folds=()
  if [[ $data == *.csv ]] && head -n 1 "$data" | grep -qw label; then tasks=("$data"); fi
fi

say "recordings -> packed log-mel spectrograms"
run melmask prepare "${sources[@]}" --out "$out/store"

for strategy in random dwm; do
  say "an encoder, with $strategy masking"
  run melmask pretrain "$out/store" --recipe quick-msm-mae --strategy "$strategy" --steps "$steps" --log-every 20 \
    --resume --out "$out/$strategy" "${settings[@]}"
done

if ((${#tasks[@]})); then
  for strategy in random dwm; do
    say "the encoder of $strategy masking on labelled tasks, beside its baselines"
    MELMASK_CACHE="$out/cache" run melmask evaluate "$out/$strategy" --task "${tasks[@]}" --pooling mean+std --probe logistic knn "${folds[@]}"
  done
fi

say "the report"
run melmask report "$out/random" "$out/dwm" --out "$out/report"
