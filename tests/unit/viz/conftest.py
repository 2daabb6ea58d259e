"""Shared by the tests of figures."""

import pytest
import torch


@pytest.fixture(scope="session")
def log_mel() -> torch.Tensor:
    """A rising tone in noise, 100 frames: 6 whole columns of patches and a remainder."""
    mel, frame = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    noise = torch.randn(80, 100, generator=torch.Generator().manual_seed(0))
    return 3 * torch.exp(-((mel - 10 - 0.5 * frame) ** 2) / 20) + 0.3 * noise
