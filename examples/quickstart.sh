#!/usr/bin/env bash
# The first five minutes, from recordings to evidence: what `make quickstart` runs.
#   examples/quickstart.sh                   on the built-in corpus
#   examples/quickstart.sh /my/recordings    on a folder
#   examples/quickstart.sh /my/table.csv     on a manifest path,label[,fold][,group], with its labels as the task
# Calling it again resumes where it was stopped. OUT, STEPS, ENCODER and RECIPE may be set: RECIPE trains encoders of
# ENCODER's form.
set -euo pipefail

data=${1:-}
encoder=${ENCODER:-tiny} # comes with melmask
recipe=${RECIPE:-quick-msm-mae}
steps=${STEPS:-70}
maskings=(random dwm)
say() { if [[ -t 1 ]]; then printf '\n\033[1m== %s\033[0m\n' "$*"; else printf '\n== %s\n' "$*"; fi; }
left_out=3 # the exit status of a command that worked and says which recordings it left out
run() { printf '$'; printf ' %q' "$@"; echo; "$@" || (($? == left_out)); }

if [[ -z $data ]]; then
  out=${OUT:-out/quickstart}
  corpus=$out/corpus
  say "the built-in corpus: sampled instruments and synthesised speech"
  run melmask demo --out "$corpus"
  sources=("$corpus"/{instruments,chroma,words,speech_other}.csv)
  tasks=("$corpus"/{instruments,chroma,words}.csv)
  # No clip of the test folds is trained on.
  settings=(--exclude {instruments,chroma,words}:{4,5})
  folds=(--test-folds 4 5)
else
  out=${OUT:-out/quickstart-$(basename "${data%.csv}")}
  sources=("$data")
  tasks=() settings=() folds=()
  if [[ $data == *.csv ]] && head -n 1 "$data" | grep -qw label; then tasks=("$data"); fi
fi
mkdir -p "$out"
export MELMASK_CACHE=$out/cache # of what is computed once: log-mels and embeddings of the tasks
probes=(--probe ridge knn)
report=(--map "$out/embeddings.npz")

say "1. $encoder: embeddings, without any training"
run melmask embed "$encoder" "${sources[@]}" --out "$out/embeddings.npz"
if ((${#tasks[@]})); then
  say "1. $encoder on labelled tasks, beside its baselines: the same encoder untrained, and log-mel statistics"
  run melmask evaluate "$encoder" --task "${tasks[@]}" "${probes[@]}" "${folds[@]}" --out "$out/results.jsonl"
  report+=(--results "$out/results.jsonl")
fi

say "2. adaptation to these recordings: packed log-mel spectrograms"
run melmask prepare "${sources[@]}" --out "$out/store"
for masking in "${maskings[@]}"; do
  say "2. adaptation with $masking masking, for $steps steps"
  resume=()
  [[ -e $out/adapted-$masking/recipe.json ]] && resume=(--resume)
  run melmask pretrain "$out/store" --recipe "$recipe" --init "$encoder" --strategy "$masking" --steps "$steps" \
    --log-every 10 "${resume[@]}" --out "$out/adapted-$masking" "${settings[@]}"
done
if ((${#tasks[@]})); then
  for masking in "${maskings[@]}"; do
    say "2. did it help? The adapted encoder against $encoder, on the same clips"
    run melmask compare "$out/adapted-$masking" "$encoder" --task "${tasks[@]}" "${probes[@]}" "${folds[@]}"
  done
  say "2. which masking? Both adapted encoders, on the same clips"
  run melmask compare "$out/adapted-${maskings[1]}" "$out/adapted-${maskings[0]}" \
    --task "${tasks[@]}" "${probes[@]}" "${folds[@]}"
fi

say "3. the page: scores, a map of the recordings with their sounds, what adaptation changed, masks"
run melmask report "${maskings[@]/#/$out/adapted-}" "${report[@]}" --out "$out/report"
