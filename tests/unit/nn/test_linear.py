import pytest
import torch
from torch import nn
from torch.nn import functional as F

from melmask.nn import linear
from melmask.nn.linear import Linear, as_convolution, convolves_faster
from melmask.nn.vit import SIZES, Encoder
from melmask.types import PatchGrid

SHAPES = [(3, 5), (5, 8), (2, 7, 8), (16, 65, 12), (2, 3, 4, 8), (1, 1, 1)]


@pytest.fixture
def forms_taken(monkeypatch):
    """Which products were convolutions, on a processor where these are faster."""
    taken, convolve = [], linear.as_convolution

    def noted(tokens, weight, bias):
        taken.append(tuple(tokens.shape))
        return convolve(tokens, weight, bias)

    monkeypatch.setattr(linear, "convolves_faster", lambda: True)
    monkeypatch.setattr(linear, "as_convolution", noted)
    return taken


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_a_convolution_is_the_product_with_all_its_gradients(shape, has_bias):
    rng = torch.Generator().manual_seed(0)
    tokens, weight, bias = (torch.randn(s, generator=rng) for s in (shape, (6, shape[-1]), (6,)))
    leaves = [tokens, weight, *([bias] if has_bias else [])]
    results = []
    for form in (F.linear, as_convolution):
        copies = [leaf.clone().requires_grad_() for leaf in leaves]
        out = form(*copies, *([] if has_bias else [None]))
        assert out.shape == (*shape[:-1], 6) and out.is_contiguous()
        out.square().sum().backward()
        results.append([out.detach(), *(copy.grad for copy in copies)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_tokens_that_do_not_lie_in_order_are_no_trouble():
    tokens = torch.randn(4, 8, 6).transpose(1, 2)
    weight = torch.randn(5, 8)
    torch.testing.assert_close(as_convolution(tokens, weight, None), F.linear(tokens, weight))


def test_only_float32_on_a_cpu_is_a_convolution(forms_taken):
    layer, tokens = Linear(8, 6), torch.randn(2, 7, 8)
    expected = nn.Linear.forward(layer, tokens)
    torch.testing.assert_close(layer(tokens), expected)
    with torch.inference_mode():
        torch.testing.assert_close(layer(tokens), expected)
    assert forms_taken == [(2, 7, 8)] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    assert layer.double()(tokens.double()).dtype == torch.float64
    assert layer.bfloat16()(tokens.bfloat16()).dtype == torch.bfloat16
    layer.float().to("meta")(tokens.to("meta"))
    assert len(forms_taken) == 2


def test_an_encoder_is_the_same_in_both_forms(monkeypatch):
    encoder, patches = Encoder(SIZES["micro"], (16, 16)), torch.randn(2, 10, 256)
    outputs = []
    for faster in (True, False):
        monkeypatch.setattr(linear, "convolves_faster", lambda faster=faster: faster)
        outputs.append(encoder(patches, PatchGrid(5, 2)))
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


def test_the_processor_decides(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(linear, "CPU_INFO", info)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    cases = [("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", False), ("GenuineIntel", "AVX512", False)]
    for vendor, capability, expected in cases:
        info.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert convolves_faster.__wrapped__() is expected
    info.unlink()  # as on Windows and macOS
    monkeypatch.setattr("platform.processor", lambda: "AMD64 Family 26 Model 2 Stepping 1, AuthenticAMD")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert convolves_faster.__wrapped__() is True
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert convolves_faster.__wrapped__() is False
