"""Training in one process, or in those that torchrun starts."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from melmask.runtime import this_device


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        device: that this process computes on.
        wrapped: the models that `wrap` wrapped for several processes.
    """

    rank: int
    size: int
    device: torch.device
    wrapped: list[DistributedDataParallel] = field(default_factory=list, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that its gradients are averaged over all processes."""
        if self.size == 1:
            return model
        self.wrapped.append(
            DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)
        )
        return self.wrapped[-1]

    def leave(self) -> None:
        """End the group of processes; models that were wrapped can take no more steps.

        The threads of gloo need Python's lock to let go of the tensors of their last work, and who destroys the group
        waits for them. torch releases the lock for that, unless the group is destroyed with the reducer of a wrapped
        model: then both wait for ever (https://github.com/pytorch/pytorch/issues/56297). So reducers go first.
        """
        for wrapped in self.wrapped:
            for name in ("reducer", "logger", "process_group"):
                vars(wrapped).pop(name, None)
        distributed.destroy_process_group()

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def any(self, flag: bool) -> bool:
        """True in all processes if ``flag`` is true in any."""
        if self.size == 1:
            return flag
        shared = torch.tensor(float(flag), device=self.device)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX)
        return bool(shared.item())

    def gather(self, tensor: Shaped[Tensor, "k *more"]) -> Tensor:
        """The tensors of all processes, which must be of one shape, concatenated in the order of ranks."""
        if self.size == 1:
            return tensor
        gathered = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(gathered, tensor.contiguous())
        return torch.cat(gathered)


RANK_TIMEOUT_S, WEEK_S = 600.0, 7 * 24 * 3600
SILENT = ("timed out", "timeout", "connection closed", "connection reset", "broken pipe")  # in what gloo and nccl say


class RankLost(RuntimeError):
    """Another process of the run does not answer any more."""


ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@contextmanager
def join_world(rank_timeout_s: float = RANK_TIMEOUT_S) -> Iterator[World]:
    """Join the processes that torchrun started, by nccl on GPUs and gloo on CPUs, or be the only process.

    Args:
        rank_timeout_s: seconds after which a process that does not answer ends the others. Processes start at
            different times, so all of them have at least 600 s to join.

    Raises:
        ValueError: rank_timeout_s is not between a second and a week.
        RankLost: another process did not join; or, within the context, it ended or did not answer for that long.
    """
    if not 1.0 <= rank_timeout_s <= WEEK_S:
        raise ValueError(f"rank_timeout_s is from 1 to {WEEK_S:,} seconds, got {rank_timeout_s}")
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = this_device()
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1:
        _join(rank, size, "nccl" if device.type == "cuda" else "gloo", rank_timeout_s)
    world = World(rank, size, device)
    try:
        yield world
    except RuntimeError as error:
        if size == 1 or not _is_silence(error):
            raise
        traceback.clear_frames(error.__traceback__)  # those of torch hold the group, see `leave`
        raise RankLost(
            f"process {rank} of {size} ends: another one ended, or did not answer for {rank_timeout_s:g} s. The last "
            f"checkpoint is kept: resume with --resume, and allow more time with --rank-timeout-s ({error})"
        ) from error
    finally:
        if size > 1:
            world.leave()


def _is_silence(error: RuntimeError) -> bool:
    return any(words in str(error).lower() for words in SILENT)


def _join(rank: int, size: int, backend: str, rank_timeout_s: float) -> None:
    join_s = max(rank_timeout_s, RANK_TIMEOUT_S)
    try:
        store, _, _ = next(distributed.rendezvous("env://", rank, size, timeout=timedelta(seconds=join_s)))
    except RuntimeError as error:
        if not _is_silence(error):
            raise
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankLost(
            f"process {rank} of {size} ends: not all of them joined at {where} within {join_s:g} s. Start all {size} "
            f"with torchrun, and look at what the others print ({error})"
        ) from error
    timeout, store = timedelta(seconds=rank_timeout_s), distributed.PrefixStore("default_pg", store)  # as torch does
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
