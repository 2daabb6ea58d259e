import copy
import math

import pytest
import torch
from torch.nn import functional as F

from bounds import assert_chain_close, assert_sums_close, encoder_terms
from melmask.nn import linear
from melmask.nn.linear import Linear, as_convolution, convolves_faster
from melmask.nn.vit import SIZES, Encoder
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

SHAPES = [(3, 5), (5, 8), (2, 7, 8), (16, 65, 12), (2, 3, 4, 8), (1, 1, 1)]


@pytest.fixture
def forms_taken(monkeypatch):
    """For each product, whether it was a convolution, on a processor where these are faster."""
    taken, convolve = [], linear.as_convolution

    def noted(tokens, weight, bias):
        taken.append(tuple(tokens.shape))
        return convolve(tokens, weight, bias)

    monkeypatch.setattr(linear, "convolves_faster", lambda: True)
    monkeypatch.setattr(linear, "as_convolution", noted)
    return taken


def product_and_gradients(form, leaves, upstream):
    """The product, and the gradients of its arguments for the gradient ``upstream`` of the product."""
    copies = [leaf.clone().requires_grad_() for leaf in leaves]
    out = form(*copies, *([None] if len(copies) == 2 else []))
    out.backward(upstream)
    return [out.detach(), *(copy.grad for copy in copies)]


@pytest.mark.parametrize("form", [F.linear, as_convolution])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_every_form_is_the_product_with_all_its_gradients(form, shape, has_bias):
    rng = torch.Generator().manual_seed(0)
    tokens, weight, bias, upstream = (
        torch.randn(s, generator=rng) for s in (shape, (6, shape[-1]), (6,), (*shape[:-1], 6))
    )
    leaves = [tokens, weight, *([bias] if has_bias else [])]
    found = product_and_gradients(form, leaves, upstream)
    exact = product_and_gradients(F.linear, [leaf.double() for leaf in leaves], upstream.double())
    absolute = product_and_gradients(F.linear, [leaf.double().abs() for leaf in leaves], upstream.double().abs())
    assert found[0].shape == (*shape[:-1], 6) and found[0].is_contiguous()
    num_tokens = math.prod(shape[:-1])
    num_terms = [shape[-1] + has_bias, 6, num_tokens, num_tokens]
    for values in zip(found, exact, absolute, num_terms[: len(found)], strict=True):
        assert_sums_close(*values)


def test_tokens_need_not_be_contiguous():
    rng = torch.Generator().manual_seed(0)
    tokens, weight = (torch.randn(shape, generator=rng).double() for shape in ((4, 8, 6), (5, 8)))
    tokens = tokens.transpose(1, 2)
    torch.testing.assert_close(as_convolution(tokens, weight, None), F.linear(tokens, weight))


def test_only_float32_on_a_cpu_is_a_convolution(forms_taken):
    layer, tokens = Linear(8, 6), torch.randn(2, 7, 8)
    x, weight, bias = tokens.double(), layer.weight.detach().double(), layer.bias.detach().double()
    exact, absolute = F.linear(x, weight, bias), F.linear(x.abs(), weight.abs(), bias.abs())
    assert_sums_close(layer(tokens), exact, absolute, 9)
    with torch.inference_mode():
        assert_sums_close(layer(tokens), exact, absolute, 9)
    assert forms_taken == [(2, 7, 8)] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(tokens).dtype == torch.bfloat16
    assert layer.double()(tokens.double()).dtype == torch.float64
    assert layer.bfloat16()(tokens.bfloat16()).dtype == torch.bfloat16
    layer.float().to("meta")(tokens.to("meta"))
    assert len(forms_taken) == 2


def test_an_encoder_is_the_same_in_both_forms(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    encoder, patches, grid = Encoder(SIZES["micro"], (16, 16)), torch.randn(2, 10, 256, generator=rng), PatchGrid(5, 2)
    exact = copy.deepcopy(encoder).double()(patches.double(), grid)
    for faster in (True, False):
        monkeypatch.setattr(linear, "convolves_faster", lambda faster=faster: faster)
        assert_chain_close(encoder(patches, grid), exact, encoder_terms(encoder.size, 256, 11))


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
