"""Weights that a run starts from: those of another run, of an encoder file, or what others published."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from melmask.data.store import Store
from melmask.files import read_json, read_tensors, select_prefix
from melmask.frameworks import Framework
from melmask.logmel import LogMelSpec
from melmask.nn.encoder_file import ENCODER, Beside, EncoderFile, FrontEnd, is_published, stated_of
from melmask.nn.foreign import is_foreign, shortened
from melmask.nn.published import read_published
from melmask.nn.shipped import PREFIX, shipped_file
from melmask.nn.vit import SIZES, Encoder
from melmask.train.checkpoint import MODEL
from melmask.train.recipe import Recipe
from melmask.train.run_folder import CHECKPOINT, INIT, RECIPE, kept_encoder, read_data, split_step

# What the command pretrain starts a recipe's runs from if it is not told.
STARTS = {"quick-msm-mae": "tiny"}


@dataclass(frozen=True)
class Initial:
    """Weights to start from.

    Args:
        path: where they are.
        saved: the encoder, with its front end.
        beside: other weights of the framework that trained it, by their names in its state.
        settings: values of a recipe that these weights need, by name, of all that are known.
        shipped: the name of the encoder that comes with melmask whose weights they are; empty for others.
        unused: networks of the file that are not started from, see `for_recipe`.
        new: networks of the recipe's model that have no weights here, see `for_recipe`.
    """

    path: Path
    saved: EncoderFile
    beside: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    shipped: str = ""
    unused: frozenset[str] = frozenset()
    new: frozenset[str] = frozenset()

    @staticmethod
    def read(source: str | Path) -> "Initial":
        """Read the weights of a run, of an encoder that it kept (RUN@STEP), of an encoder file, or published ones.

        Args:
            source: where they are; or as a str the name of an encoder that comes with melmask.

        Raises:
            ValueError: there are none, or they are damaged; see `EncoderFile.load` and `read_published`.
        """
        file = shipped_file(source)
        if file:
            return _of_file(file, file.stem)
        path = Path(source)
        run, step = split_step(path)
        if step is not None:
            return replace(_of_file(kept_encoder(run, step)), path=path)
        if not path.exists():
            raise ValueError(f"no weights to start from at {path}: check the path")
        if path.is_dir() and not is_foreign(path):
            return _of_run(path)
        if is_published(path):
            return _of_published(path)
        return _of_file(path)

    def for_recipe(self, recipe: Recipe) -> "Initial":
        """These weights for a recipe's model, whose other networks are new.

        They go without those that an encoder file holds beside the encoder, if the recipe's are others: an encoder is
        of use with any framework and decoder. Those of a run must be those of the recipe, see `check`.
        """
        model, own, unused = recipe.outline(), self.saved.beside, frozenset[str]()
        state = model.state_dict()
        if own:
            parts = frozenset(_parts(own.weights))
            of_recipe = {name: tensor for name, tensor in state.items() if name.partition(".")[0] in parts}
            fits = own.form == Beside(recipe.framework, recipe.decoder_size, of_recipe).form
            unused = frozenset() if fits else parts
        given = replace(self, beside={} if unused else self.beside, unused=unused)
        return replace(given, new=frozenset(_parts(state) - _parts(given._for(model))))

    @property
    def called(self) -> str:
        """What messages call them."""
        return self.shipped or str(self.path)

    @property
    def source(self) -> str:
        """A name that `read` takes in any folder."""
        return f"{PREFIX}{self.shipped}" if self.shipped else str(self.path.resolve())

    @property
    def named(self) -> dict[str, Any]:
        """What init.json says of them: path, identity, layers and pooling of their file; and which networks are new."""
        return {"path": self.source, "identity": self.identity, **self.saved.stated, "new": sorted(self.new)}

    @property
    def identity(self) -> str:
        """A hash of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._weights().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def check(self, recipe: Recipe, spec: LogMelSpec) -> None:
        """Check that a recipe trains a model of this form, on input of this front end.

        Raises:
            ValueError: it does not; every setting that differs is named with its value here.
        """
        trained, shares = dataclasses.asdict(recipe), _parts(self.beside) & _parts(recipe.outline().state_dict())
        differ = {
            name: value
            for name, value in self.settings.items()
            if trained[name] != value and (shares or not name.startswith("decoder_"))
        }
        if differ:
            needed = " ".join(f"--{name.replace('_', '-')} {_words(value)}" for name, value in differ.items())
            alone = f" (or start from the encoder alone: {ENCODER} of its folder, or what `melmask import` makes)"
            hint = alone if any(name.startswith("decoder_") for name in differ) else ""
            raise ValueError(f"{self.called} is of another form than the recipe's. It needs {needed}{hint}")
        if self.saved.front_end.spec != spec:
            raise ValueError(
                f"{self.called} takes log-mels of {self.saved.front_end.spec}, and the store has {spec}: start from "
                "random weights (--init random), or prepare the recordings with the front end of these"
            )

    def start(self, model: Framework) -> str:
        """Load the weights into a model of the same form.

        Another encoder of the model that has no weights here, such as the target of M2D, or a part of it, starts from
        the encoder's.

        Returns:
            What was taken, what starts anew, and what is not used, in words.

        Raises:
            ValueError: tensors are missing, which are named.
        """
        state, given = model.state_dict(), self._for(model)
        parts = _parts(state)
        taken = [part for part in dict.fromkeys(name.partition(".")[0] for name in state) if part in _parts(given)]
        missing = [name for name in state if name.partition(".")[0] in taken and name not in given]
        if missing:
            raise ValueError(f"{self.path} lacks weights of the recipe's model: {shortened(missing)}")
        model.load_state_dict(state | {name: given[name] for name in state if name in given})
        model.encoder.load_state_dict(self.saved.encoder.state_dict())  # last, since a target may share parts of it
        own = {f"its {part}" for part in self.unused}
        stray = {name for name in self.beside if name.partition(".")[0] in parts and name not in state}
        said = {"new": parts - set(taken), "not used": (_parts(self.beside) - parts) | stray | own}
        more = "".join(f"; {what}: {', '.join(sorted(names))}" for what, names in said.items() if names)
        return f"{', '.join(taken)} from {self.called}{more}"

    def _for(self, model: Framework) -> dict[str, Tensor]:
        """All weights, and those of the encoder for other encoders of a model, by their names in its state."""
        given, others = self._weights(), list(model.encoders().values())
        for name, module in model.named_modules():
            if module in others:
                given = _named(name, self.saved.encoder) | given
        return given

    def _weights(self) -> dict[str, Tensor]:
        """All weights, by their names in the state of the framework that trained them."""
        return _named("encoder", self.saved.encoder) | dict(self.beside)


def find_initial(init: str | Path | None, run: Path, recipe: Recipe, spec: LogMelSpec) -> Initial | None:
    """The weights that a run starts from; None if from random ones, or if its checkpoint has all that is needed.

    Args:
        init: what the user named; None for what the run to be resumed was started from, if anything.
        run: the run's folder.
        recipe: of the run.
        spec: the front end of its store.

    Raises:
        ValueError: they cannot be read, are of another form than the recipe's, or not those the run was started from.
    """
    before = read_initial(run) if (run / RECIPE).exists() else {}
    if (run / CHECKPOINT).exists() and not init:
        return None
    source = init or before.get("path")
    if source is None:
        return None
    initial = Initial.read(source).for_recipe(recipe)
    initial.check(recipe, spec)
    if (run / RECIPE).exists() and before.get("identity") != initial.identity:
        raise ValueError(f"{run} was not started from {source} as it is now: leave it out, or choose another folder")
    if (run / CHECKPOINT).exists():  # the run goes on as it began, perhaps before new networks were recorded
        return replace(initial, new=frozenset(before.get("new", ())))
    return initial


def normalised_for(run: Path, store: Store, initial: Initial | None, resume: bool) -> Store:
    """The store, normalised as the run's encoder knows its input: by the statistics of the weights it starts from.

    Without such weights they are the store's own. A run that is resumed keeps those that it was begun with.
    """
    if begun := read_data(run) if resume else {}:
        return store.normalised(begun["mean"], begun["std"])
    return store.normalised(initial.saved.front_end.mean, initial.saved.front_end.std) if initial else store


def read_initial(run: Path) -> dict[str, Any]:
    """What init.json says of the weights that a run started from, see `Initial.named`; empty if from random ones."""
    path = run / INIT
    return read_json(path, "description of the weights a run started from") if path.exists() else {}


def stated_features(run: Path) -> dict[str, Any]:
    """The layers and pooling that the encoder file of a run states: those of the weights that it started from."""
    return stated_of(read_initial(run))


def _of_file(path: Path, shipped: str = "") -> Initial:
    """The weights of an encoder file, and of the decoder that it may hold too."""
    saved = EncoderFile.load(path)
    return Initial(path, saved, saved.beside.weights if saved.beside else {}, _form(saved.encoder), shipped)


def _of_run(run: Path) -> Initial:
    """The weights of a run's last checkpoint, or of its encoder file if there is none."""
    saved = EncoderFile.load(run / ENCODER)
    if not (run / CHECKPOINT).exists() or not (run / RECIPE).exists():
        return Initial(run, saved, {}, _form(saved.encoder))
    weights, recipe = select_prefix(read_tensors(run / CHECKPOINT)[0], MODEL), Recipe.load(run / RECIPE)
    beside = {name: tensor for name, tensor in weights.items() if not name.startswith("encoder.")}
    decoder = {f"decoder_{name}": value for name, value in dataclasses.asdict(recipe.decoder_size).items()}
    return Initial(run, saved, beside, _form(saved.encoder) | decoder)


def _of_published(path: Path) -> Initial:
    """Published weights, with those of decoder, predictor and target; the heads of a decoder are not known."""
    found = read_published(path)
    saved = EncoderFile(found.encoder, FrontEnd(found.spec, found.mean, found.std), found.crop_frames)
    settings = _form(found.encoder)
    if found.decoder:
        settings |= dict(zip(("decoder_dim", "decoder_depth"), found.decoder, strict=True))
    return Initial(path, saved, found.beside, settings)


def _form(encoder: Encoder) -> dict[str, Any]:
    """The settings of a recipe that trains such an encoder."""
    named = [name for name, size in SIZES.items() if size == encoder.size]
    return {
        "size": named[0] if named else str(encoder.size),
        "patch_shape": encoder.patch_shape,
        "position_order": encoder.positions.order,
    }


def _named(prefix: str, module: Module) -> dict[str, Tensor]:
    """A module's state, under a prefix."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def _parts(names: Iterable[str]) -> set[str]:
    """The networks that tensors are of, by the first words of their names."""
    return {name.partition(".")[0] for name in names}


def _words(value: Any) -> str:
    """A setting's value as on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
