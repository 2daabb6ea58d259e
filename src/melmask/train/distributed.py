"""Training in one process, or in those that torchrun starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Shaped
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Args:
        rank: number of this process, from 0.
        size: number of processes.
        device: that this process computes on.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, wrapped so that its gradients are averaged over all processes."""
        if self.size == 1:
            return model
        return DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)

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


ALONE = World(rank=0, size=1, device=torch.device("cpu"))


@contextmanager
def join_world() -> Iterator[World]:
    """Join the processes that torchrun started, by nccl on GPUs and gloo on CPUs, or be the only process."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(rank, size, device)
    finally:
        if size > 1:
            distributed.destroy_process_group()
