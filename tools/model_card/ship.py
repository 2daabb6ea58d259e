"""Put a run's encoder into the package, in half precision, with what the model card says of the run.

make tiny-encoder RUN=out/run POOLING=mean+std COMMAND="melmask pretrain ..."

Of several runs that started from the same weights, it is the mean of their weights; "tiny" among them stands for the
encoder that is in the package now, and for what training.json says of it. With a share of 0 a run is only told of,
such as one that the others started from. The decoder that was trained with them is put beside it, for `--init`.
"""

import argparse
import json
from collections.abc import Sequence
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
from melmask.nn.encoder_file import Beside, EncoderFile
from melmask.nn.time_steps import SHRINKAGE
from melmask.nn.vit import Encoder
from melmask.train.initial import Initial, read_initial
from melmask.train.recipe import Recipe
from melmask.train.run_folder import RECIPE, read_log, split_step
from melmask.train.whiten import learn_whitening
from model_card.card import HERE, TRAINING, read_training

MAX_MEGABYTES = 12.0
WHITENING_CROPS = 4096
POOLINGS = [pooling for pooling in get_args(Pooling) if pooling != "auto"]


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, write the encoder and training.json, and say what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help='the run\'s folder, or RUN@STEP; several, and "tiny", for their mean')
    parser.add_argument("--shares", nargs="+", type=float, help="of several runs, which add up to 1 (default: equal)")
    parser.add_argument("--name", default="tiny", choices=sorted(shipped.SHIPPED))
    parser.add_argument("--layers", nargs="+", default=["last"], help="to read by default: last, all, or numbers")
    parser.add_argument("--pooling", default="mean", choices=POOLINGS, help="to read by default")
    parser.add_argument("--whiten-on", type=Path, help="store of the training data, to learn a whitening from it")
    parser.add_argument("--shrinkage", type=float, default=SHRINKAGE, help="of that whitening")
    parser.add_argument("--command", nargs="+", default=[], help="that trained it, for the card: one for each run")
    parser.add_argument("--card", type=Path, default=HERE, help="folder of training.json")
    given = parser.parse_args(arguments)
    shares = given.shares or [1 / len(given.runs)] * len(given.runs)
    layers = given.layers[0] if given.layers[0] in ("last", "all") else tuple(map(int, given.layers))
    files = [PretrainedEncoder.load(run).as_file() for run in given.runs]
    saved = replace(mean_of(files, shares), layers=layers, pooling=given.pooling, beside=beside_of(given.runs, shares))
    if given.whiten_on:
        loader = Recipe.load(_newest(given.runs) / RECIPE).make_loader(Store.open(given.whiten_on))
        saved = replace(
            saved, whitening=learn_whitening(saved.encoder, loader.sample(WHITENING_CROPS), layers, given.shrinkage)
        )
    file = shipped.WEIGHTS / shipped.SHIPPED[given.name]
    file.parent.mkdir(exist_ok=True)
    saved.save(file, torch.float16)
    megabytes = file.stat().st_size / 1e6
    if megabytes > MAX_MEGABYTES:
        file.unlink()
        raise ValueError(
            f"{' and '.join(given.runs)} takes {megabytes:.1f} MB, more than the {MAX_MEGABYTES:g} MB that a wheel may"
        )
    trainings: list[dict[str, Any]] = []
    commands = iter(given.command)
    for run, share in zip(given.runs, shares, strict=True):
        of_run = read_training(given.card)["runs"] if run in shipped.SHIPPED else [about(run, next(commands, ""))]
        trainings += [one | {"share": round(one["share"] * share, 6)} for one in of_run]
    of_encoder = {
        "runs": trainings,
        "megabytes": megabytes,
        "stated": saved.stated,
        "is_whitened": saved.whitening is not None,
        "has_decoder": saved.beside is not None,
    }
    write_json(given.card / TRAINING, of_encoder)
    identity = PretrainedEncoder.load(file).identity
    with_it = "with its decoder" if saved.beside else "without a decoder, as the runs kept none or several forms of it"
    print(f"{file}: {megabytes:.1f} MB, {with_it}, identity {identity[:16]}; its figures: make model-card")


def mean_of(files: Sequence[EncoderFile], shares: Sequence[float]) -> EncoderFile:
    """The first one with the mean of the weights of all; without a whitening if they are several.

    Args:
        files: encoders of one size and front end, of runs that started from the same weights.
        shares: of each, which add up to 1.

    Raises:
        ValueError: as many shares are needed, which add up to 1; or the encoders differ in more than weights.

    Source: model soups, arXiv 2203.05482, where they are fine-tuned on labels; here, trained further without.
    """
    if len(shares) != len(files) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"{len(files)} runs need as many shares, which add up to 1: got {list(shares)}")
    first = files[0]
    if len(files) == 1:
        return first
    for file in files[1:]:
        if _form(file) != _form(first):
            raise ValueError("the encoders differ in size, front end or crops: only weights can be averaged")
    states = [file.encoder.state_dict() for file in files]
    mean = {name: sum(s * state[name].float() for s, state in zip(shares, states, strict=True)) for name in states[0]}
    first.encoder.load_state_dict(mean)
    return replace(first, whitening=None)


def beside_of(runs: Sequence[str], shares: Sequence[float]) -> Beside | None:
    """The mean of what was trained with the encoders of runs, such as their decoders, but not of other encoders.

    Args:
        runs, shares: as of `main`.

    Returns:
        None where a run that has a share kept nothing but its encoder, or trained networks of another form.
    """
    found = [(share, trained_with(run)) for run, share in zip(runs, shares, strict=True) if share]
    _, first = found[0]
    if first is None or any(one is None or one.form != first.form for _, one in found):
        return None
    states = [(share, one.weights) for share, one in found if one]
    return replace(first, weights={name: sum(s * state[name].float() for s, state in states) for name in first.weights})


def trained_with(run: str) -> Beside | None:
    """What was trained with a run's encoder, or is kept with the one in the package; None if nothing was kept."""
    initial = Initial.read(f"{shipped.PREFIX}{run}" if run in shipped.SHIPPED else Path(run))
    if not initial.beside or initial.saved.beside:
        return initial.saved.beside
    recipe = Recipe.load(Path(run) / RECIPE)
    others = {name for name, module in recipe.outline().named_children() if isinstance(module, Encoder)}
    weights = {name: value for name, value in initial.beside.items() if name.partition(".")[0] not in others}
    return Beside(recipe.framework, recipe.decoder_size, weights)


def about(given: str, command: str) -> dict[str, Any]:
    """What the card says of a run: recipe, steps, hours and what it was started from."""
    run, step = split_step(Path(given))
    log = [entry for entry in read_log(run) if step is None or entry["step"] <= step]
    seconds = [entry["elapsed_s"] for entry in log]
    ends = [before for before, after in pairwise(seconds) if after < before]  # of parts that ended and were resumed
    return {
        "share": 1.0,
        "command": command,
        "recipe": json.loads((run / RECIPE).read_text()),
        "steps": log[-1]["step"],
        "hours": (sum(ends) + seconds[-1]) / 3600,
        "init": Path(read_initial(run).get("path", "")).name,
    }


def _form(file: EncoderFile) -> tuple[Any, ...]:
    return file.encoder.size, file.encoder.patch_shape, file.front_end, file.crop_frames


def _newest(runs: Sequence[str]) -> Path:
    """The folder of the last one that is a run."""
    return split_step(Path([run for run in runs if run not in shipped.SHIPPED][-1]))[0]


if __name__ == "__main__":
    main()
