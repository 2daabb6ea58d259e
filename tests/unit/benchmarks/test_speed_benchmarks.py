"""The benchmarks of speed: what they compare with computes the same, and what they write is what they measured."""

import importlib
import io
import json
import math
import subprocess
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from bounds import assert_chain_close, assert_features_close, log_mel_with_bound
from melmask.cli import main as cli
from melmask.encoders.pretrained import PretrainedEncoder
from melmask.frameworks import FRAMEWORKS, M2D
from melmask.logmel import LogMel, LogMelSpec
from melmask.masking import draw
from melmask.nn.encoder_file import EncoderFile, FrontEnd
from melmask.nn.vit import Encoder, Size
from melmask.patches import patchify
from melmask.types import PatchGrid

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
GRID, PATCH_SHAPE = PatchGrid(3, 5), (4, 4)
ENCODER, DECODER = Size(32, 2, 4), Size(16, 1, 2)
KEYS = {"framework", "size", "dtype", "samples_per_s", "baseline_samples_per_s", "ratio", "ceiling_share"}


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module, by name; products for the ceiling are small."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    ceiling = importlib.import_module("ceiling")
    for name, value in {"SQUARES": (8,), "WIDTHS": (8,), "TOKENS": 8}.items():
        monkeypatch.setattr(ceiling, name, value)
    return importlib.import_module


def what_it_writes(benchmark, folder: Path) -> tuple[list[dict], str]:
    """The rows and the page of a quick run."""
    benchmark.main(["--quick", "--json", str(folder / "rows.json"), "--markdown", str(folder / "page.md")])
    return json.loads((folder / "rows.json").read_text()), (folder / "page.md").read_text()


def written(benchmark, folder: Path) -> tuple[list[dict], str]:
    """The same of a benchmark that compares with the plain form."""
    rows, page = what_it_writes(benchmark, folder)
    for row in rows:
        assert set(row) >= KEYS
        figures = [value for value in row.values() if isinstance(value, int | float)]
        assert all(math.isfinite(value) and value >= 0 for value in figures)
        assert min(row[key] for key in KEYS - {"framework", "size", "dtype"}) > 0
    return rows, page


# What is compared with


def both_forms(baseline, framework, dtype):
    """Our model and the plain one with the same weights, an input and a mask, and the plain form's loss of it."""
    torch.manual_seed(0)
    ours = FRAMEWORKS[framework](ENCODER, DECODER, PATCH_SHAPE)
    plain = baseline.PLAIN[framework](ENCODER, DECODER, GRID, PATCH_SHAPE)
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # no bias is zero, and the target has moved away
    baseline.copy_weights(plain.to(dtype), ours.to(dtype))

    log_mel = torch.randn(6, GRID.freq * 4, GRID.time * 4).to(dtype)
    mask = draw("random", grid=GRID, batch_size=6, mask_ratio=0.7, rng=torch.Generator().manual_seed(1))
    jumbled = mask.masked[:, torch.randperm(mask.masked.shape[1])]  # a shuffle is in no order
    plain_loss = plain(log_mel, torch.cat([mask.visible, jumbled], dim=1), mask.visible.shape[1])
    return ours, plain, patchify(log_mel, PATCH_SHAPE), mask, plain_loss


@pytest.mark.parametrize("framework", ["m2d", "msm-mae"])
def test_the_plain_form_computes_our_loss_and_gradient(script, framework):
    """In float64, but for our loss, which is of 6 x 11 masked patches and of at most 32 values in each."""
    ours, plain, patches, mask, plain_loss = both_forms(script("baseline"), framework, torch.float64)
    loss = ours(patches, GRID, mask, None).value
    assert mask.masked.shape == (6, 11)
    assert_chain_close(loss, plain_loss, 6 * 32 + 6 * 11)

    loss.backward()
    plain_loss.backward()
    gradients = {name: p.grad.reshape(-1) for name, p in plain.named_parameters() if p.grad is not None}
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            assert_chain_close(parameter.grad.reshape(-1).float(), gradients.pop(name), 6 * 11 * 32)
    assert not gradients


@pytest.mark.parametrize("framework", ["m2d", "msm-mae"])
def test_in_bf16_our_loss_is_the_plain_one_within_its_rounding(script, framework):
    """A value in bfloat16 is off by up to 2^-9 of itself; the mean over masked patches by less than twice that."""
    ours, _, patches, mask, plain_loss = both_forms(script("baseline"), framework, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = float(ours(patches, GRID, mask, None).value.detach())
    assert loss != float(plain_loss.detach())
    assert loss == pytest.approx(float(plain_loss.detach()), rel=2**-8)


def test_the_plain_average_is_ours(script):
    torch.manual_seed(0)
    baseline = script("baseline")
    ours = M2D(ENCODER, DECODER, PATCH_SHAPE, M2D.Options(ema_start=0.9, ema_end=0.9))
    for parameter in ours.encoder.parameters():
        parameter.data += torch.randn_like(parameter)
    plain = baseline.PlainM2D(ENCODER, DECODER, GRID, PATCH_SHAPE)
    baseline.copy_weights(plain, ours)
    plain.after_step(0.9)
    ours.after_step(0.0)
    moved = dict(plain.target.named_parameters())
    for name, parameter in ours.target.named_parameters():
        torch.testing.assert_close(moved.pop(name).reshape(-1), parameter.reshape(-1))
    assert not moved


def test_the_plain_log_mel_is_ours(script, tmp_path):
    prepare = script("prepare")
    wave = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(tmp_path / "noise.wav", wave, 16_000)
    decoded = prepare.decoded(tmp_path / "noise.wav", "float32")
    prepare.PlainPrepare(tmp_path / "out")([tmp_path / "noise.wav"])
    plain = torch.from_numpy(np.load(tmp_path / "out/noise.npy"))
    ours = LogMel(LogMelSpec())(decoded[None])[0]
    for found, num_terms in ((plain, LogMelSpec().n_fft), (ours, 0)):
        (expected,), (bound,) = log_mel_with_bound(decoded[None].numpy(), LogMelSpec(), num_terms)
        assert (np.abs(found.numpy() - expected) < bound).all()


def test_the_plain_embedding_is_ours(script, store, tmp_path):
    embed, recordings = script("embed"), script("recordings")
    torch.manual_seed(0)
    encoder = Encoder(ENCODER, (16, 16))
    frozen = PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), 608)
    files = sorted(recordings.write_clip_files(store, tmp_path / "clips").iterdir())
    found, expected = embed.PlainEmbedder(encoder, store)(files), frozen.embed_store(store)
    assert_features_close(found, expected, ENCODER, num_patches=5 * 19)  # of clips of at most 3 s


# What they write


def test_train_writes_a_row_for_every_framework_and_dtype(script, tmp_path, monkeypatch):
    train = script("train")
    micro = {
        "size": "micro",
        "crop_frames": 96,
        "batch_size": 4,
        "decoder_dim": 32,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    monkeypatch.setattr(train, "SETTINGS", {f"base-{framework}": micro for framework in ("m2d", "msm-mae")})
    monkeypatch.setattr(train, "NUM_CLIPS", 6)
    monkeypatch.setattr(train, "CLIP_S", 1.0)
    monkeypatch.setattr(train, "QUICK_S", {"micro": 0.01})
    monkeypatch.setattr(train, "QUICK_BATCH", {("micro", "float32"): 2})
    rows, page = written(train, tmp_path)
    assert [(row["framework"], row["size"], row["dtype"], row["batch"]) for row in rows] == [
        (framework, "micro", dtype, batch)
        for framework in ("m2d", "msm-mae")
        for dtype, batch in (("float32", 2), ("bf16", 4))
    ]
    for row in rows:
        assert row["gflop"] == pytest.approx(row["forward_gflop"] + row["backward_gflop"])
        assert 0 < row["overhead_share"] < 1
        assert (row["ema_gflop"] > 0) == (row["framework"] == "m2d")
        assert f"| {row['framework']} | micro | {row['dtype']} |" in page
    assert all(f"| {phase} |" in page for phase in train.PHASES)
    assert "not measured" in page  # of the targets, which are about tiny and base


def test_the_phases_are_the_whole_step(script, monkeypatch):
    train = script("train")
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def work(seconds: float) -> None:
        now[0] += seconds

    laps = train.Laps()
    laps.start()
    laps.around(work, "data", before="data")(1.0)
    work(0.25)
    laps.around(work, "mask", before="forward")(2.0)
    laps.around(work, "forward", before="forward")(4.0)
    work(0.5)
    laps.around(work, "EMA", before="optimiser")(8.0)
    laps.cut("optimiser")
    spent = {"data": 1.0, "mask": 2.0, "forward": 4.25, "backward": 0.0, "optimiser": 0.5, "EMA": 8.0}
    assert laps.steps == [spent]


def test_lengths_writes_a_row_for_every_number_of_parts(script, tmp_path, monkeypatch):
    lengths = script("lengths")
    monkeypatch.setattr(lengths, "NUM_CLIPS", 12)
    monkeypatch.setattr(lengths, "NAMES", ("micro-m2d",))
    monkeypatch.setattr(lengths, "QUICK_S", 0.001)
    lengths.main(["--quick", "--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "page.md")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["parts"] for row in rows] == list(lengths.PARTS) and rows[0]["ratio"] == 1.0
    shares = [row["sound_share"] for row in rows]
    assert shares == sorted(shares) and shares[0] < shares[-1] <= 1.0
    assert f"| micro-m2d | 1 | {rows[0]['samples_per_s']:.0f} | 1.00 |" in (tmp_path / "page.md").read_text()


def test_prepare_writes_a_row_for_every_kind_of_file(script, tmp_path, monkeypatch):
    benchmark = script("prepare")
    kinds = [benchmark.Kind(kind.name, kind.extension, kind.rate_hz, 4) for kind in benchmark.KINDS]
    monkeypatch.setattr(benchmark, "KINDS", kinds)
    monkeypatch.setattr(benchmark, "CLIP_S", 0.5)
    monkeypatch.setattr(benchmark, "QUICK_S", 0.001)
    prepare = benchmark.prepare  # processes take seconds to start
    monkeypatch.setattr(benchmark, "prepare", lambda files, out, num_workers: prepare(files, out, num_workers=0))
    rows, page = written(benchmark, tmp_path)
    assert [row["size"] for row in rows] == [kind.name for kind in kinds]
    assert all(f"| {kind.name} | 2 |" in page for kind in kinds)
    assert "a core's rate" in page


@pytest.mark.parametrize("dtypes", [["float32"], ["float32", "bf16"]])
def test_embed_writes_a_row_for_every_encoder_and_dtype(script, tmp_path, monkeypatch, dtypes):
    embed = script("embed")
    monkeypatch.setattr(embed, "computes_in_bf16", lambda device: "bf16" in dtypes)
    monkeypatch.setattr(embed, "NUM_CLIPS", {"micro": 12, "shallow": 8})
    monkeypatch.setattr(embed, "LONGEST_S", 1.5)
    monkeypatch.setattr(embed, "QUICK_S", 0.001)
    rows, page = written(embed, tmp_path)
    assert [(row["size"], row["dtype"], row["clips"]) for row in rows] == [
        (size, dtype, clips) for size, clips in (("micro", 3), ("shallow", 2)) for dtype in dtypes
    ]
    assert all(f"| micro | {dtype} | 3 |" in page for dtype in dtypes) and "| shallow | float32 | 2 |" in page


def test_the_shares_of_a_step_add_up(script, tmp_path, monkeypatch):
    train, profile_step = script("train"), script("profile_step")
    micro = {"size": "micro", "crop_frames": 96, "batch_size": 4, "decoder_dim": 32, "decoder_depth": 1}
    monkeypatch.setitem(train.SETTINGS, "base-m2d", micro | {"decoder_heads": 2})
    for name in [name for name in train.SETTINGS if name != "base-m2d"]:
        monkeypatch.delitem(train.SETTINGS, name)
    monkeypatch.setattr(profile_step, "NUM_CLIPS", 6)
    monkeypatch.setattr(profile_step, "CLIP_S", 1.0)
    monkeypatch.setitem(profile_step.QUICK_STEPS, "micro", 1)
    rows, page = what_it_writes(profile_step, tmp_path)
    assert [(row["size"], row["dtype"]) for row in rows] == [("micro", "float32"), ("micro", "bf16")]
    kinds = [*profile_step.KINDS, profile_step.OTHER, profile_step.OUTSIDE]
    for row in rows:
        assert sum(row[kind] for kind in kinds) == pytest.approx(1) and row["step_s"] > 0
        assert all(row[kind] > 0 for kind in ("products", "softmax", "GELU", "norms", "optimiser"))
    assert "| m2d | micro | bf16 |" in page


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::addmm", "products"),
        ("aten::add_", "sums and products by element"),
        ("aten::native_layer_norm_backward", "norms"),
        ("aten::linalg_vector_norm", "optimiser"),
        ("aten::_softmax_backward_data", "softmax"),
        ("aten::copy_", "casts and copies"),
        ("aten::view", "other operations"),
    ],
)
def test_an_operation_is_known_by_its_name(script, operation, kind):
    assert script("profile_step").kind_of(operation) == kind


def test_the_check_of_a_device_agrees_with_itself_on_a_cpu(script, tmp_path, monkeypatch):
    device = script("device")
    monkeypatch.setattr(device, "STRATEGIES", ["random", "dwm", "sgim", "hard"])
    monkeypatch.setattr(device, "BATCHES", {"small": 2})
    monkeypatch.setattr(device, "SPEED_SHARE", math.inf)
    monkeypatch.setattr(device, "gemm_ceiling", lambda *_: 1e10)  # takes seconds; the planner's tests have it
    monkeypatch.setattr(device, "FRAMEWORKS", ["m2d"])
    arguments = ["--device", "cpu", "--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "page.md")]
    device.main([*arguments, "--out", str(tmp_path / "out"), "--budget-s", "1"])  # so that training is short
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert not [row for row in rows if "error" in row]
    parts = ("masks", "losses", "resume", "speed", "training")
    of = {part: [row for row in rows if row["part"] == part] for part in parts}
    assert [row["equal_share"] for row in of["masks"]] == [1.0] * 4
    assert all(row["loss_error"] <= row["bound"] for row in of["losses"]) and len(of["losses"]) == 2
    assert [row["different"] for row in of["resume"]] == [0]
    assert [row["form"] for row in of["speed"]] == ["ours", "plain"]
    assert all(row["samples_per_s"] > 0 and 0 <= row["mask_share"] < 1 for row in of["speed"])
    (row,) = of["training"]
    assert row["steps"] == row["log"][-1]["step"] >= 1 and row["complete"] == (row["steps"] == row["of_steps"])
    assert all(line["loss"] > 0 and line["effective_rank"] > 0 for line in row["log"]) and row["samples_per_s"] > 0
    encoder = EncoderFile.load(tmp_path / "out" / row["encoder"])
    assert encoder.crop_frames == 96 and (tmp_path / "out" / row["encoder"]).stat().st_size == row["encoder_bytes"]
    page = (tmp_path / "page.md").read_text()
    assert "| m2d | small | plain |" in page and "on procedural sound" in page


def test_the_check_of_a_device_names_what_there_was_no_time_for(script, tmp_path, monkeypatch, store):
    device = script("device")
    monkeypatch.setattr(device, "FRAMEWORKS", ["m2d"])
    cases = device.speeds(torch.device("cpu"), store, tmp_path, True, ("ours",), lambda: 0.0)
    assert [row["error"] for row in cases] == [f"m2d {size} ours: no time was left" for size in device.BATCHES]


def test_pretraining_of_the_check_ends_when_its_time_is_up(script, tmp_path, monkeypatch):
    training = script("device_training")
    monkeypatch.setattr(training, "MIN_STEPS", 40)
    (row,) = training.pretraining(tmp_path, tmp_path, 0.0, quick=True)
    assert (row["complete"], row["steps"], row["of_steps"]) == (False, 2, 40)
    assert EncoderFile.load(tmp_path / row["encoder"]).encoder.size.dim == 32


def test_a_part_of_the_check_that_fails_stops_no_other(script, tmp_path, monkeypatch):
    device = script("device")

    def broken(*args):
        raise RuntimeError("no kernel image is available")
        yield

    for part in ("losses", "speeds", "pretraining"):
        monkeypatch.setattr(device, part, broken)
    monkeypatch.setattr(device, "STRATEGIES", ["random"])
    monkeypatch.setattr(device, "resumes", lambda store, folder: iter([]))
    device.main(["--device", "cpu", "--json", str(tmp_path / "rows.json"), "--markdown", str(tmp_path / "page.md")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["part"] for row in rows] == ["masks", "losses", "speed", "training", "speed"]
    assert (
        "no kernel image is available" in rows[1]["error"] and "no kernel image" in (tmp_path / "page.md").read_text()
    )


def test_busy_asks_every_form_in_turns_idle_and_beside_a_busy_process(script, tmp_path, monkeypatch):
    busy = script("busy")
    idle, beside = {"all": 4.0, "one": 2.0, "ours": 3.0}, {"all": 0.5, "one": 2.0, "ours": 1.5}
    others = []

    @contextmanager
    def process(work, form):
        yield lambda seconds: (beside if others else idle)[form]

    @contextmanager
    def busy_process():
        others.append(1)
        yield
        others.pop()

    monkeypatch.setattr(busy, "process", process)
    monkeypatch.setattr(busy, "busy_process", busy_process)
    rows, page = what_it_writes(busy, tmp_path)
    assert [row["work"] for row in rows] == list(busy.WORK)
    assert all(row["idle_ratio"] == row["busy_ratio"] == 0.75 for row in rows)
    assert "| train | crops | 4 | 3 | 0.75 | 0.5 | 2 | 1.5 | 0.75 |" in page and "missed" in page


@pytest.mark.parametrize("work", ["embed", "probes"])
def test_a_worker_of_busy_does_its_work_and_answers_with_the_rate(script, work, monkeypatch):
    busy, answers = script("busy"), io.StringIO()
    monkeypatch.setattr(busy, "NUM_CLIPS", 3)
    busy.worker(work, io.StringIO("0.01\n0.01\n"), answers)
    assert len(answers.getvalue().split()) == 2 and all(float(rate) > 0 for rate in answers.getvalue().split())


def test_start_takes_the_median_of_every_command(script, tmp_path, monkeypatch):
    start, given = script("start"), []

    def seconds_of(arguments):
        given.append(arguments)
        if "embed" in arguments:
            cli.main(arguments[2:])  # the command is one that works
        return float(len(given))

    monkeypatch.setattr(start, "seconds_of", seconds_of)
    rows, page = what_it_writes(start, tmp_path)
    assert [row["command"] for row in rows] == ["melmask --help", "melmask pretrain --help", "melmask embed"]
    assert [row["seconds"] for row in rows] == [8.0, 9.0, 10.0]  # of the second turn and the third, 4 later
    assert "| melmask --help | 8.00 | 7.00 |" in page


def test_the_ceiling_is_the_product_with_the_best_rate_in_any_turn(script, monkeypatch):
    ceiling = script("ceiling")
    of_16, of_8 = (ceiling.REPEATS * 2 * side**3 for side in (16, 8))
    small, large = ceiling.Ceiling(of_8, "small"), ceiling.Ceiling(of_16, "large")
    rest = [9.0] * (ceiling.ROUNDS - 2)
    slow, taken_s = 1.0, {"small": [9.0, 1e-6, *rest], "large": [4e-6, 9.0, *rest]}  # 8 times the operations
    monkeypatch.setattr(ceiling, "one_turn", lambda call: [taken_s[call].pop(0), slow])
    monkeypatch.setattr(ceiling, "forms", lambda side, *rest: [{8: small, 16: large}[side]])
    best, _ = ceiling.gemm_ceilings(torch.float32, [(8, 8, 8), (16, 16, 16)])
    assert best is large and best.rates([1.0, 4e-6]) == pytest.approx([of_16, of_16 / 4e-6])
    assert not any(taken_s.values())


def test_the_ceiling_has_both_forms_of_a_product_each_several_times(script, monkeypatch):
    ceiling = script("ceiling")
    matmul, convolution = ceiling.forms(5, 4, 3, torch.float32)
    for product in (matmul, convolution):
        assert product.flops == ceiling.REPEATS * 2 * 5 * 4 * 3 and len(product.call()) == ceiling.REPEATS
    torch.testing.assert_close(matmul.call()[0], convolution.call()[0])
    monkeypatch.setattr(ceiling, "one_turn", lambda call: [1.0 if call == convolution.call else 2.0])
    monkeypatch.setattr(ceiling, "forms", lambda *shape: [matmul, convolution])
    best, best_matmul = ceiling.gemm_ceilings(torch.float32, [(5, 4, 3)])
    assert best is convolution and best_matmul is matmul


# The page, the targets, the comparison


def test_a_section_replaces_its_own_and_leaves_the_rest(script, tmp_path):
    page, path = script("page"), tmp_path / "page.md"
    page.write_section(path, "one", "first")
    page.write_section(path, "two", "second")
    path.write_text(path.read_text().replace("# Performance", "# Performance, by hand"))
    page.write_section(path, "one", "third")
    lines = path.read_text().splitlines()
    assert "first" not in lines and lines.index("third") < lines.index("second")
    assert lines[0] == "# Performance, by hand" and lines.count("<!-- end of one -->") == 1


def test_a_target_is_reached_or_missed_by_its_worst_row(script):
    targets = script("targets")
    rows = [{"size": "tiny", "ratio": 3.0}, {"size": "tiny", "ratio": 1.5}, {"size": "base", "ratio": 0.1}]
    tiny = targets.of("ratio", size="tiny")
    for target, said in [
        (targets.Target("train", "speed", 1.5, tiny, why="slow"), ["at least 1.50", "1.50", "reached", ""]),
        (targets.Target("train", "speed", 1.6, tiny, why="slow"), ["at least 1.60", "1.50", "missed", "slow"]),
        (
            targets.Target("train", "share", 2.0, targets.of("ratio", max, size="tiny"), at_most=True),
            ["at most 2.00", "3.00", "missed", ""],
        ),
        (
            targets.Target("train", "speed", 1.6, targets.of("ratio", size="small")),
            ["at least 1.60", "", "not measured", ""],
        ),
    ]:
        assert targets.verdict(target, rows)[1:] == said


@pytest.mark.parametrize("has_amx", [True, False])
def test_a_processor_is_held_against_its_own_targets(script, monkeypatch, has_amx):
    targets = script("targets")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    every, with_it, without = (
        targets.Target("train", text, 1.0, targets.of("ratio"), with_amx=kind)
        for text, kind in (("all", None), ("with", True), ("without", False))
    )
    monkeypatch.setattr(targets, "TARGETS", (every, with_it, without, targets.Target("busy", "", 1.0, max)))
    assert targets.targets_of("train") == [every, with_it if has_amx else without]


def test_a_revision_is_compared_with_this_one(script, tmp_path, monkeypatch, capsys):
    compare, repository = script("compare"), tmp_path / "repository"
    source = """
        import json, pathlib, sys
        row = {"framework": "m2d", "dtype": "bf16", "samples_per_s": RATE}
        assert sys.argv[1:3] == ["--quick", "--json"]
        pathlib.Path(sys.argv[3]).write_text(json.dumps([row]))
    """
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    (repository / "benchmarks").mkdir(parents=True)
    subprocess.run([*git, "init", "--quiet"], check=True)
    for rate in ("10.0", "25.0"):
        (repository / "benchmarks/train.py").write_text(textwrap.dedent(source).replace("RATE", rate))
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "--quiet", "-m", rate], check=True)
    monkeypatch.setattr(compare, "HERE", repository)
    compare.main(["HEAD~1", "--only", "train", "embed"])
    printed = capsys.readouterr().out
    assert "embed is not compared" in printed
    (line,) = [line for line in printed.splitlines() if "m2d bf16" in line]
    assert line.split() == ["train", "m2d", "bf16", "10", "25", "2.50", "2.50", "to", "2.50"]
    with pytest.raises(ValueError, match="'nowhere'"):
        compare.main(["nowhere"])
    listed = subprocess.run([*git, "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert len(listed.splitlines()) == 1
