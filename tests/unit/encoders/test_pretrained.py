"""Features of clips and time steps: what they are, and what they must not depend on."""

import dataclasses

import numpy as np
import pytest
import soundfile
import torch

from bounds import assert_features_close
from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.encoders import features, pretrained
from melmask.encoders.features import Pool, loudness
from melmask.encoders.frames import frames_of
from melmask.encoders.pretrained import FeatureSettings, PretrainedEncoder
from melmask.encoders.readings import delays
from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
from melmask.nn.vit import Encoder, Size
from melmask.types import PatchGrid

pytestmark = pytest.mark.numerical

SIZE = Size(32, 3, 2)
SETTINGS = [
    FeatureSettings(layers, pooling)
    for layers in ("last", "all", (1, 3))
    for pooling in (
        "mean", "mean+max", "mean+std", "mean+std+quarters", "weighted-mean+weighted-std+quarters",
        "shifted-mean+shifted-std+quarters",
    )
]  # fmt: skip
by_settings = pytest.mark.parametrize("settings", SETTINGS, ids=str)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Noise that comes and goes, of 1, 5, 2.3 and 5 s."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    for number, seconds in enumerate((1.0, 5.0, 2.3, 5.0)):
        time_s = np.arange(int(16_000 * seconds)) / 16_000
        sound = 0.1 * rng.standard_normal(len(time_s)) * (0.1 + np.sin(3 * time_s + number) ** 2)
        soundfile.write(folder / f"{number}.wav", sound, 16_000)
    return prepare([folder], tmp_path_factory.mktemp("stores") / "clips", num_workers=0)


def frozen(store: Store, settings: FeatureSettings = SETTINGS[0], crop_frames: int = 96) -> PretrainedEncoder:
    """An untrained encoder, three layers deep, whose norm is not the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = Encoder(SIZE, (16, 16))
        torch.nn.init.normal_(encoder.norm.weight)
        torch.nn.init.normal_(encoder.norm.bias)
    return PretrainedEncoder(encoder, FrontEnd(store.spec, store.mean, store.std), crop_frames, settings)


@by_settings
def test_a_short_clip_embeds_the_same_alone_and_batched_with_a_long_one(clips, settings):
    encoder = frozen(clips, settings)
    alone, together = encoder.embed_store(clips, [0]), encoder.embed_store(clips, [1, 0, 2])
    assert together.shape == (3, encoder.num_dims) and together.dtype == np.float32
    assert_features_close(together[1], alone[0], SIZE)
    assert np.abs(together[0] - together[1]).max() > 1e-2


@by_settings
def test_batches_of_any_size_give_the_same_embeddings(clips, settings, monkeypatch):
    encoder, found = frozen(clips, settings), []
    for tokens in (1, 90, 10**6):
        monkeypatch.setattr(pretrained, "TOKENS_PER_BATCH", tokens)
        monkeypatch.setattr(pretrained, "CLIPS_AT_ONCE", 3 if tokens == 90 else 1024)
        found.append(encoder.embed_store(clips))
    assert_features_close(found[1], found[0], SIZE)
    assert_features_close(found[2], found[0], SIZE)


@by_settings
def test_an_embedding_pools_all_time_steps_of_the_clip(clips, settings):
    """`frames` takes one clip at a time, so this also checks that chunks are joined in their order."""
    encoder = frozen(clips, settings)
    kept = encoder.time_steps(clips)
    steps = [encoder.frames(clips.log_mel(row))[0].astype(np.float64) for row in range(4)]
    assert len(steps[1]) == 32 and encoder.num_steps(clips.clips[1].num_frames) == 32  # 501 frames, of which 11 pad
    assert kept.steps.dtype == np.float16 and len(kept) == 4
    assert all(np.abs(kept.clip(row) - steps[row]).max() < 4e-3 for row in range(4))
    weights = [np.ones(len(clip)) for clip in steps]
    if encoder.settings.pooling.startswith(("weighted", "shifted")):
        weights = [fourth_root_of_power(clips, row, len(clip)) for row, clip in enumerate(steps)]
    readings = [steps]
    if settings.pooling.startswith("shifted"):  # weighted as they are, and read higher by parts of a patch
        readings += [[encoder.frames(higher(clips.log_mel(row), by))[0] for row in range(4)] for by in (4, 8, 12)]
    means = [[np.average(own, axis=0, weights=w) for own, w in zip(read, weights, strict=True)] for read in readings]
    expected = np.mean(means, axis=0)
    if settings.pooling == "mean+max":
        expected = np.hstack([expected, np.stack([clip.max(axis=0) for clip in steps])])
    if "std" in settings.pooling:
        variances = [
            [np.average((own - mean) ** 2, axis=0, weights=weight) for own, mean, weight in zip(*one, strict=True)]
            for one in zip(readings, means, [weights] * len(readings), strict=True)
        ]
        expected = np.hstack([expected, np.mean(np.sqrt(variances), axis=0)])
    if "quarters" in settings.pooling:
        quarters = [clip.repeat(4, axis=0).reshape(4, len(clip), -1).mean(axis=1).ravel() for clip in steps]
        expected = np.hstack([expected, np.stack(quarters)])
    read_once = slice(1 if "quarters" in settings.pooling else 0, None)  # the first has few time steps: the test below
    assert_features_close(encoder.embed_store(clips)[read_once], expected[read_once], SIZE)


def higher(log_mel: np.ndarray, num_bands: int) -> np.ndarray:
    """Some mel bands up, one by one."""
    return np.stack([log_mel[:, max(band - num_bands, 0)] for band in range(log_mel.shape[1])], axis=1)


def fourth_root_of_power(store: Store, row: int, num_steps: int) -> np.ndarray:
    """Of each time step of 16 frames: the mean over its frames and bands, with silence after the clip's end."""
    power = np.full((num_steps * 16, store.spec.num_mels), np.exp(store.spec.silence))
    power[: store.clips[row].num_frames] = np.exp(store.log_mel(row).astype(np.float64))
    return np.array([(power[first : first + 16] ** 0.25).mean() for first in range(0, len(power), 16)])


def test_silence_between_sounds_hardly_changes_weighted_statistics(clips):
    """A clip beside itself with as much silence again at its end: plain means move by a large part of their size."""
    moved = {}
    for pooling in ("mean+std+quarters", "weighted-mean+weighted-std+quarters"):
        encoder = frozen(clips, FeatureSettings(pooling=pooling), crop_frames=16)  # each time step for itself
        clip = np.asarray(clips.log_mel(1), np.float32)[:480]
        silence = np.full_like(clip, clips.spec.silence)
        pooled = [
            encoder._pooled([len(sound)], frames_of([sound]))[0] for sound in (clip, np.concatenate([clip, silence]))
        ]
        mean, with_silence = (vector[: encoder.num_step_dims] for vector in pooled)
        moved[pooling] = np.linalg.norm(mean - with_silence) / np.linalg.norm(mean)
    assert moved["weighted-mean+weighted-std+quarters"] < 0.2 * moved["mean+std+quarters"]


def test_equal_loudness_gives_the_plain_statistics():
    steps = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 8, 3)))
    plain, weighted = Pool([[8]], 3, "mean+std+quarters"), Pool([[8]], 3, "weighted-mean+weighted-std+quarters")
    plain.add([(0, 0)], [steps])
    weighted.add([(0, 0)], [steps], weight=np.full((1, 8), 0.125))
    assert np.allclose(weighted.pooled(), plain.pooled(), atol=1e-6)


def test_loudness_of_a_fall_by_40_db_is_a_tenth():
    log_mel = np.repeat(np.log([[[1.0, 1.0]], [[1e-4, 1e-4]]]), 4, axis=1)
    assert loudness(log_mel, 2) == pytest.approx(np.array([[1.0, 1.0], [0.1, 0.1]]))


def test_quarters_of_a_clip_of_few_time_steps_are_of_several_readings(clips):
    encoder, seen = frozen(clips, FeatureSettings(pooling="mean+std+quarters")), []
    found = encoder.embed_store(clips, progress=lambda done, total: seen.append((done, total)))
    for row, own in enumerate(((0, 8), (0,), (0,), (0,))):  # of 7, 32, 15 and 32 time steps
        clip = np.asarray(clips.log_mel(row), np.float32)
        silence = [np.full((delay, clip.shape[1]), clips.spec.silence, np.float32) for delay in own]
        readings = [encoder.frames(np.concatenate([before, clip]))[0].astype(np.float64) for before in silence]
        steps = np.concatenate(readings)
        quarters = [one.repeat(4, axis=0).reshape(4, len(one), -1).mean(axis=1).ravel() for one in readings]
        expected = np.hstack([steps.mean(axis=0), steps.std(axis=0), np.mean(quarters, axis=0)])
        assert_features_close(found[row], expected, SIZE)
    assert seen[-1][0] == seen[-1][1] == 17 + 2  # chunks, and those of the second reading
    assert_features_close(encoder.embed_store(clips, [3, 0])[1], found[0], SIZE)


def test_a_short_clip_is_read_until_three_time_steps_fall_into_each_quarter_and_four_times_at_most():
    four, two, one = (0, 8, 4, 12), (0, 8), (0,)
    for num_steps, expected in {1: four, 5: four, 6: two, 11: two, 12: one, 99: one}.items():
        assert delays(num_steps, 16, "mean+std+quarters") == expected
        assert delays(num_steps, 16, "mean+std") == (0,)
    assert delays(1, 2, "mean+std+quarters") == (0, 1) and delays(1, 1, "mean+std+quarters") == (0,)


def test_progress_ends_at_its_total(clips):
    seen: list[tuple[int, int]] = []
    frozen(clips).embed_store(clips, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (17, 17)  # 7, 32, 15 and 32 time steps in chunks of at most 6 are 2, 6, 3 and 6 chunks
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_layers_are_the_blocks_outputs_each_normalised(clips):
    every = frozen(clips, FeatureSettings("all"), crop_frames=608)
    log_mel = clips.log_mel(0)
    steps = every.frames(log_mel)[0].reshape(-1, 3, 5, 32)  # time, layer, freq, dim
    assert np.array_equal(steps[:, 2].reshape(-1, 160), frozen(clips, crop_frames=608).frames(log_mel)[0])
    for number in (1, 2):
        assert np.abs(steps[:, number - 1].mean(axis=-1)).max() < 1e-5
        assert np.abs(steps[:, number - 1].std(axis=-1) - 1).max() < 1e-3
        one = frozen(clips, FeatureSettings((number,)), crop_frames=608)
        assert np.array_equal(one.frames(log_mel)[0], steps[:, number - 1].reshape(-1, 160))


def test_the_last_layer_by_any_of_its_names_is_the_same(clips):
    last, third = frozen(clips), frozen(clips, FeatureSettings((3,)))
    assert np.array_equal(last.embed_store(clips), third.embed_store(clips))
    assert last.identity == third.identity


def test_the_encoders_layers_end_in_its_output():
    encoder, grid = Encoder(SIZE, (16, 16)), PatchGrid(5, 4)
    patches, index = torch.randn(2, 20, 256), torch.tensor([[1, 5, 7], [0, 2, 19]])
    for some in (None, index):
        outputs = encoder.layers(patches, grid, some)
        assert len(outputs) == 3
        assert torch.equal(encoder.norm(outputs[-1]), encoder(patches, grid, some))
        first = encoder.blocks[0](encoder._embed(patches, grid, some))
        assert torch.equal(outputs[0], first)


def test_a_click_is_in_the_time_step_whose_centre_is_nearest_also_in_a_long_file(tmp_path):
    """Blocks that add nothing leave each step a function of its own frames, so only steps with clicks stand out."""
    clicks_s = [0.4, 1.55, 9.55, 9.65, 30.0, 61.3, 69.95]  # chunks end at multiples of 0.96 s, less half a frame
    sound = np.zeros(16_000 * 70)
    sound[[round(16_000 * at_s) for at_s in clicks_s]] = 1.0
    soundfile.write(tmp_path / "clicks.wav", sound, 16_000)
    store = prepare([tmp_path], tmp_path / "store", num_workers=0)
    encoder = frozen(store, crop_frames=96)
    for block in encoder.encoder.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    features, centres_s = encoder.frames(store.log_mel(0))
    silence = encoder.frames(np.tile(store.log_mel(0, 0, 1), (store.clips[0].num_frames, 1)))[0]
    stands_out = np.flatnonzero(np.abs(features - silence).max(axis=1) > 1e-3)
    assert stands_out.tolist() == [int(np.abs(centres_s - at_s).argmin()) for at_s in clicks_s]
    assert len(centres_s) == 438 and np.allclose(np.diff(centres_s[:-1]), encoder.step_s)
    assert centres_s[-1] == pytest.approx(69.96)  # of the frames that hold sound, centred on 69.92 to 70 s
    assert centres_s[0] == pytest.approx(0.075)  # its frames are centred on 0, 10, ... 150 ms


def test_pieces_in_any_order_give_the_statistics_of_the_whole():
    rng = np.random.default_rng(0)
    steps = (1000 + rng.standard_normal((2, 50, 6))).astype(np.float32)  # a mean far above the deviation
    deviation = steps.astype(np.float64).std(axis=1)
    quarters = steps.astype(np.float64).repeat(2, axis=1).reshape(2, 4, 25, 6).mean(axis=2).reshape(2, 24)
    loud = rng.uniform(0.01, 1, (2, 50))
    share = (loud / loud.sum(axis=1, keepdims=True))[:, :, None]
    weighted_mean = (share * steps).sum(axis=1, keepdims=True)
    weighted = np.stack([weighted_mean[:, 0], np.sqrt((share * (steps - weighted_mean) ** 2).sum(axis=1))], axis=1)
    for pooling, second in (
        ("mean+max", steps.max(axis=1)),
        ("mean+std", deviation),
        ("mean+std+quarters", np.hstack([deviation, quarters])),
        ("weighted-mean+weighted-std+quarters", np.hstack([weighted[:, 1], quarters])),
    ):
        pool = Pool([[50], [50]], 6, pooling)
        for first, last in ((20, 50), (0, 3), (3, 20)):
            layers = torch.from_numpy(steps[[1, 0], first:last]).split(2, dim=2)
            pool.add([(1, first), (0, first)], list(layers), weight=loud[[1, 0], first:last])
        first_moment = weighted[:, 0] if pool.is_weighted else steps.astype(np.float64).mean(axis=1)
        expected = np.hstack([first_moment, second])
        assert np.abs(pool.pooled() - expected).max() < 1e-4


def test_the_layers_of_quarters_stand_side_by_side():
    steps = torch.arange(8.0).reshape(1, 4, 2)
    pool = Pool([[4]], 4, "mean+std+quarters")
    pool.add([(0, 0)], [steps, 100 + steps])
    one, other = steps[0], 100 + steps[0]
    assert pool.pooled()[0, 8:].reshape(4, 4).tolist() == torch.cat([one, other], dim=1).tolist()


def test_quarters_of_a_short_clip_are_parts_of_its_steps():
    for num_steps, expected in (
        (1, [5, 5, 5, 5]),
        (3, [5, 5 / 3 + 14 / 3, 14 / 3 + 3, 9]),
        (5, [5.4, 7.8, 10.2, 12.6]),
    ):
        values = torch.tensor([5.0, 7, 9, 11, 13])[:num_steps, None]
        pool = Pool([[num_steps]], 1, "mean+std+quarters")
        pool.add([(0, 0)], [values[None]])
        assert pool.pooled()[0, 2:].tolist() == pytest.approx(expected, rel=1e-5)


def test_what_does_not_vary_deviates_by_nothing_and_not_by_rounding():
    value = np.float32(0.1)
    steps = np.full((1, 7, 2), value)
    steps[0, ::2, 1] = np.nextafter(value, np.float32(1))
    pool = Pool([[7]], 2, "mean+std")
    pool.add([(0, 0)], [torch.from_numpy(steps)])
    assert pool.pooled()[0, 2:].tolist() == [0.0, 0.0]


def test_identity_changes_with_whatever_embeddings_depend_on(clips):
    base = frozen(clips)
    identities = {base.identity, frozen(clips).identity}
    assert len(identities) == 1
    others = [frozen(clips, settings) for settings in SETTINGS[1:]]
    others.append(frozen(clips, crop_frames=112))
    others.append(base.untrained(0))
    changed = frozen(clips)
    changed.front_end = dataclasses.replace(changed.front_end, mean=changed.front_end.mean + 1e-6)
    others.append(changed)
    touched = frozen(clips)
    with torch.no_grad():
        touched.encoder.blocks[1].mlp.fc1.weight[3, 4] += 1e-6
    others.append(touched)
    identities |= {other.identity for other in others}
    assert len(identities) == 1 + len(others)


def test_names_and_settings_travel(clips, tmp_path):
    base = frozen(clips)
    (tmp_path / "birds").mkdir()
    EncoderFile(base.encoder, base.front_end, base.crop_frames).save(tmp_path / "birds" / ENCODER)
    settings = FeatureSettings("all", "mean+std", whitened="no")
    loaded = PretrainedEncoder.load(tmp_path / "birds", settings)
    assert loaded.name == "birds (all layers, mean+std)" and loaded.untrained(0).settings == settings
    assert PretrainedEncoder.load(tmp_path / "birds" / ENCODER).name == "birds"
    assert PretrainedEncoder.load(tmp_path / "birds").untrained(0).name == "birds untrained"
    assert np.array_equal(loaded.embed_store(clips), frozen(clips, settings).embed_store(clips))


def test_in_bf16_features_differ_by_its_rounding_and_have_an_identity_of_their_own(clips):
    exact, rounded = frozen(clips), frozen(clips, FeatureSettings(precision="bf16"))
    a, b = exact.embed_store(clips), rounded.embed_store(clips)
    assert a.dtype == b.dtype == np.float32 and not np.array_equal(a, b)
    assert np.abs(a - b).max() < 0.1 * a.std()  # of values near 1, each rounded by 2^-9 a few times
    assert exact.identity != rounded.identity and "bf16" in rounded.name and "float32" not in exact.name


def test_precision_auto_is_what_the_hardware_computes_in(clips, monkeypatch, as_for_users):
    for is_fast, precision in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(features, "computes_in_bf16", lambda device, is_fast=is_fast: is_fast)
        expected = FeatureSettings("last", "mean", precision, "no")
        assert frozen(clips, FeatureSettings(precision="auto")).settings == expected
    with pytest.raises(ValueError, match=r"no precision 'half'.*bf16"):
        FeatureSettings(precision="half")


@pytest.mark.parametrize(
    ("layers", "pooling", "message"),
    [
        ("first", "mean", "no layers 'first'.*last, all"),
        ((), "mean", "name each once"),
        ((2, 1), "mean", "ascending"),
        ((2, 2), "mean", "once"),
        ((0,), "mean", "from 1 on"),
        ("last", "median", r"no pooling 'median'.*mean\+max"),
    ],
)
def test_settings_that_make_no_sense_are_refused(layers, pooling, message, as_for_users):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(layers, pooling)


def test_a_layer_that_is_not_there_is_refused(clips):
    with pytest.raises(ValueError, match="layer 4 of an encoder of 3 layers: choose from 1 to 3"):
        frozen(clips, FeatureSettings((1, 4)))


def test_log_mels_of_another_kind_are_refused(clips):
    encoder = frozen(clips)
    for shape in ((0, 80), (50, 64)):
        with pytest.raises(ValueError, match="of 80 bands is needed"):
            encoder.frames(np.zeros(shape, np.float16))


def test_features_beyond_half_precision_are_refused_by_clip(clips):
    encoder = frozen(clips)
    with torch.no_grad():
        encoder.encoder.norm.bias.fill_(1e5)
    with pytest.raises(ValueError, match=r"features of .*\.wav.* do not fit half precision"):
        encoder.time_steps(clips)
    with torch.no_grad():
        encoder.encoder.norm.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="half precision"):
        encoder.time_steps(clips)
