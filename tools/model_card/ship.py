"""Put a run's encoder into the package, in half precision, with what the model card says of the run.

make tiny-encoder RUN=out/run POOLING=mean+std COMMAND="melmask pretrain ..."
"""

import argparse
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import torch

from melmask.data.store import Store
from melmask.encoders.features import Pooling
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.files import write_json
from melmask.nn import shipped
from melmask.nn.encoder_file import ENCODER, EncoderFile
from melmask.train.initial import read_initial
from melmask.train.recipe import Recipe
from melmask.train.run_folder import RECIPE, kept_encoder, read_log, split_step
from melmask.train.whiten import learn_whitening
from model_card.card import HERE, TRAINING

MAX_MEGABYTES = 12.0
WHITENING_CROPS = 4096
POOLINGS = [pooling for pooling in get_args(Pooling) if pooling != "auto"]


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, write the encoder and training.json, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", help="the run's folder, or RUN@STEP")
    parser.add_argument("--name", default="tiny", choices=sorted(shipped.SHIPPED))
    parser.add_argument("--layers", nargs="+", default=["last"], help="to read by default: last, all, or numbers")
    parser.add_argument("--pooling", default="mean", choices=POOLINGS, help="to read by default")
    parser.add_argument("--whiten-on", type=Path, help="store of the training data, for a run without a whitening")
    parser.add_argument("--command", default="", help="that trained it, for the card")
    parser.add_argument("--card", type=Path, default=HERE, help="folder of training.json")
    given = parser.parse_args(arguments)
    run, step = split_step(Path(given.run))
    layers = given.layers[0] if given.layers[0] in ("last", "all") else tuple(map(int, given.layers))
    source = run / ENCODER if step is None else kept_encoder(run, step)
    saved = replace(EncoderFile.load(source), layers=layers, pooling=given.pooling)
    if given.whiten_on:
        loader = Recipe.load(run / RECIPE).make_loader(Store.open(given.whiten_on))
        saved = replace(saved, whitening=learn_whitening(saved.encoder, loader.sample(WHITENING_CROPS), layers))
    file = shipped.WEIGHTS / shipped.SHIPPED[given.name]
    file.parent.mkdir(exist_ok=True)
    saved.save(file, torch.float16)
    megabytes = file.stat().st_size / 1e6
    if megabytes > MAX_MEGABYTES:
        file.unlink()
        raise ValueError(f"{given.run} takes {megabytes:.1f} MB, more than the {MAX_MEGABYTES:g} MB that a wheel may")
    of_run = about(run, step, given.command) | {
        "megabytes": megabytes,
        "stated": saved.stated,
        "is_whitened": saved.whitening is not None,
    }
    write_json(given.card / TRAINING, of_run)
    identity = PretrainedEncoder.load(file).identity
    print(f"{file}: {megabytes:.1f} MB, identity {identity[:16]}; its figures: make model-card")


def about(run: Path, step: int | None, command: str) -> dict[str, Any]:
    """What the card says of a run: recipe, steps, hours and what it was started from."""
    log = [entry for entry in read_log(run) if step is None or entry["step"] <= step]
    seconds = [entry["elapsed_s"] for entry in log]
    ends = [before for before, after in pairwise(seconds) if after < before]  # of parts that ended and were resumed
    return {
        "command": command,
        "recipe": json.loads((run / RECIPE).read_text()),
        "steps": log[-1]["step"],
        "hours": (sum(ends) + seconds[-1]) / 3600,
        "init": Path(read_initial(run).get("path", "")).name,
    }


if __name__ == "__main__":
    main()
