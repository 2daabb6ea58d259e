"""Draw the pictures of docs/masking.md, every strategy in STRATEGIES on the same four sounds, and docs/masks.png.

    make docs-pictures            # or, from the repository's root: PYTHONPATH=tools python -m field_guide

Strategies that are guided by a model get a micro encoder (MSM-MAE, random masking), which is trained first on the
built-in corpus, in under three minutes on one thread, and kept in the work folder; `--run RUN` takes another run's
model instead. Requires the extra melmask[demo].
"""

import argparse
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import soundfile
import torch

from field_guide.pictures import save_pictures
from field_guide.subjects import subjects_of
from melmask.data.prepare import prepare
from melmask.demo.corpus import SAMPLE_RATE_HZ, make_demo
from melmask.train.loop import pretrain
from melmask.train.recipe import RECIPES
from melmask.train.run_folder import RECIPE
from melmask.viz.masks import save_mask_figure

CLIPS_PER_TASK, CLIPS_PER_RECORDING = 60, 5  # recordings of some 8 s, as the guide's sounds last 6
STEPS = 600
RECORDINGS = "recordings"


def main() -> None:
    """Parse the command line, train unless a run is given, and draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/masking"), help="folder of the pictures")
    parser.add_argument("--run", type=Path, help="run folder with the model that guides, instead of training one")
    parser.add_argument("--work", type=Path, default=Path("out/field-guide"), help="where to train")
    parser.add_argument(
        "--only", nargs="*", default=None, help="names of pictures, without .png; all of them if absent"
    )
    arguments = parser.parse_args()
    run = arguments.run or train(arguments.work)
    for path in save_pictures(subjects_of(run), arguments.out, only=arguments.only):
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")
    if not arguments.run and arguments.only is None:
        recording = shutil.copy(arguments.work / RECORDINGS / "000.wav", arguments.work / "speech-and-notes.wav")
        save_mask_figure(Path(recording), arguments.out.parent / "masks.png")


def train(work: Path) -> Path:
    """Train a small run on the built-in corpus; resumes one that was stopped."""
    run, recordings = work / "run", work / RECORDINGS
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], crop_frames=608, steps=STEPS, mask_ratio=0.7, save_every=200)
    if not (work / "store").exists():
        join_clips(make_demo(work / "corpus", clips_per_task=CLIPS_PER_TASK), recordings)
    store = prepare([recordings], work / "store", num_workers=0)
    pretrain(
        recipe,
        store,
        run,
        resume=(run / RECIPE).exists(),
        report=lambda line: print(f"step {line.step}: loss {line.loss:.3f}"),
    )
    return run


def join_clips(manifests: list[Path], out: Path) -> None:
    """Concatenate the corpus's short clips, in random order, into recordings longer than a crop."""
    clips = sorted(path for manifest in manifests for path in manifest.with_suffix("").glob("*.wav"))
    order = np.random.default_rng(0).permutation(len(clips))
    out.mkdir(parents=True, exist_ok=True)
    for i in range(len(clips) // CLIPS_PER_RECORDING):
        part = order[i * CLIPS_PER_RECORDING : (i + 1) * CLIPS_PER_RECORDING]
        waves = [soundfile.read(clips[clip], dtype="float32")[0] for clip in part]
        soundfile.write(out / f"{i:03d}.wav", np.concatenate(waves), SAMPLE_RATE_HZ, subtype="PCM_16")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
