"""Networks that are new in a run that starts from other weights: at first, they alone are trained."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from melmask.train.initial import read_initial
from melmask.train.optimiser import warmup_steps

WARMUPS = 2  # after which all is trained


@dataclass(frozen=True)
class NewNetworks:
    """The networks of a model that had no weights to start from, and for how many steps they alone are trained.

    A decoder that has learned nothing yet gives an encoder gradients that move it away from what it had learned, and a
    short run does not bring it back (LOG.md). So all other networks stay as they are while the learning rate rises, and
    as long again.

    Args:
        names: of the networks; none in a run from random weights, and in one that starts with weights of all.
        num_steps: from the start of the run.

    Source: a new part that is trained before all of it is the LP-FT of fine-tuning, arXiv 2202.10054. Deviates: in
    pre-training, and for twice the warm-up.
    """

    names: frozenset[str]
    num_steps: int

    @staticmethod
    def of_run(run: Path, warmup: float, num_steps: int) -> "NewNetworks":
        """Those of a run with that warm-up and number of steps; none if it began before they were recorded.

        They are trained alone in half of its steps at most, however long the warm-up.
        """
        names = frozenset(read_initial(run).get("new", ()))
        return NewNetworks(names, min(WARMUPS * warmup_steps(num_steps, warmup), num_steps // 2) if names else 0)

    def train_alone(self, step: int, model: nn.Module) -> None:
        """In these first steps, drop the gradients of all other networks, so that the optimiser passes over them.

        They are computed all the same, so that processes exchange the same tensors in every step.

        >>> import torch
        >>> model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "decoder": nn.Linear(2, 2, bias=False)})
        >>> model["decoder"](model["encoder"](torch.ones(2))).sum().backward()
        >>> NewNetworks(frozenset({"decoder"}), 10).train_alone(9, model)
        >>> [name for name, parameter in model.named_parameters() if parameter.grad is not None]
        ['decoder.weight']
        """
        for name, parameter in model.named_parameters() if step < self.num_steps else ():
            if name.partition(".")[0] not in self.names:
                parameter.grad = None

    @property
    def told(self) -> str:
        """What the message on the start of a run says of these steps; empty without any."""
        return f"; only what is new is trained in the first {self.num_steps} steps" if self.num_steps else ""
