"""Procedural sound: fixed by seed and number, where its formulas say, as a store and as a stream of training."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from melmask.cli.main import main
from melmask.data.loader import Loader
from melmask.data.store import Store
from melmask.demo.procedural import store as stores
from melmask.demo.procedural.families import FAMILIES, NUM_PARAMETERS
from melmask.demo.procedural.signals import Notes
from melmask.demo.procedural.stream import ProceduralCrops, ProceduralSound
from melmask.demo.procedural.synthesise import leading_family, synthesise
from melmask.logmel import LogMel, LogMelSpec
from melmask.train import loop
from melmask.train.recipe import RECIPES, Recipe

RATE = 16_000
ROUNDING = 1e-4  # of sound with a peak of at most 1, over sums of some thousand terms in float32


def note(family: str, seconds: float = 0.5, rate_hz: int = RATE, **u: float) -> torch.Tensor:
    """One note, with all random numbers 0.5 but those given as u0, u1..."""
    values = np.full((1, NUM_PARAMETERS), 0.5)
    for name, value in u.items():
        values[0, int(name[1:])] = value
    num_samples = round(seconds * rate_hz) // 128 * 128
    notes = Notes(values, torch.tensor([[seconds]]), num_samples, rate_hz, torch.device("cpu"))
    return FAMILIES[family].render(notes)[0]


def at(hz: float, low: float, high: float) -> float:
    """The random number with which a log-uniform parameter has that value."""
    return float(np.log(hz / low) / np.log(high / low))


def spectrum(sound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Frequencies in Hz, and power."""
    power = torch.fft.rfft(sound.double() * torch.hann_window(len(sound), dtype=torch.float64)).abs().square()
    return torch.linspace(0, RATE / 2, len(power), dtype=torch.float64), power


def centroid(sound: torch.Tensor) -> float:
    hz, power = spectrum(sound)
    return float((hz * power).sum() / power.sum())


@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_clips_are_finite_in_range_and_not_silent(family):
    sound = synthesise(range(6), 0.8, RATE, seed=3, family=family)
    assert sound.shape == (6, 12_800) and sound.dtype == torch.float32 and sound.isfinite().all()
    peak = sound.abs().amax(dim=1)
    assert (peak <= 1).all() and (peak > 0.01).all()


def test_a_clip_is_fixed_by_seed_and_number_whatever_is_made_beside_it():
    sound = synthesise(range(12), 1.0, RATE)
    assert torch.equal(synthesise(range(12), 1.0, RATE), sound)
    alone, others = synthesise([7], 1.0, RATE), synthesise([9, 7, 30], 1.0, RATE)
    assert torch.allclose(alone[0], sound[7], rtol=0, atol=ROUNDING)
    assert torch.allclose(others[:2], sound[[9, 7]], rtol=0, atol=ROUNDING)
    assert not torch.allclose(synthesise([7], 1.0, RATE, seed=1)[0], alone[0], atol=0.01)
    assert (sound[:, None] - sound).abs().amax(dim=2).fill_diagonal_(1).min() > 0.01  # all differ


def test_other_rates_and_unknown_families():
    assert synthesise(range(2), 0.3, 32_000).shape == (2, 9600)
    with pytest.raises(ValueError, match="no family 'dogs' of procedural sound; there are: harmonic, "):
        synthesise([0], 1.0, family="dogs")
    with pytest.raises(ValueError, match=r"at least 0\.05 s, got 0\.01"):
        synthesise([0], 0.01)


def test_partials_of_harmonic_sound_are_multiples_of_its_fundamental():
    f0 = 220.0
    sound = note("harmonic", u0=at(f0, 40, 2000), u2=0.0, u4=0.0, u5=0.9, u6=1.0, u7=1.0)
    hz, power = spectrum(sound)
    distance = (hz / f0 - (hz / f0).round()).abs() * f0
    assert power[distance < 15].sum() > 0.99 * power.sum()
    for k in range(1, 13):
        assert power[(hz - k * f0).abs() < 10].max() > 0.2 * power.max()
    assert power[hz > 12.5 * f0].sum() < 1e-3 * power.sum()


def test_modes_of_inharmonic_sound_are_those_of_a_bar():
    sound = note("inharmonic", u0=at(300, 60, 3000), u2=0.9, u3=0.0, u4=1.0, **{f"u{NUM_PARAMETERS - 1}": 0.0})
    hz, power = spectrum(sound)
    expected = torch.zeros_like(hz, dtype=torch.bool)
    for ratio in (1.0, 2.757, 5.404, 8.933, 13.34, 18.64):
        expected |= (hz - 300 * ratio).abs() < 15
    assert power[expected].sum() > 0.98 * power.sum()


def test_sidebands_of_frequency_modulation_lie_at_the_carrier_and_multiples_of_the_modulator():
    sound = note("fm", u0=at(1000, 50, 3000), u1=0.0, u3=0.9, u4=at(1.0, 0.3, 15), u6=1.0, u7=1.0)  # a quarter: 250 Hz
    hz, power = spectrum(sound)
    nearest = (hz / 250 - (hz / 250).round()).abs() * 250
    assert power[nearest < 10].sum() > 0.99 * power.sum()
    assert power[(hz - 750).abs() < 10].max() > 0.1 * power[(hz - 1000).abs() < 10].max()


@pytest.mark.parametrize("centre", [500.0, 2000.0])
def test_noise_lies_in_its_band(centre):
    sound = note("noise", 2.0, u0=at(centre, 80, 7000), u1=0.0, u4=at(0.2, 0.05, 2.5))
    hz, power = spectrum(sound)
    assert power[(hz - centre).abs() < 0.2 * centre].sum() > 0.9 * power.sum()


@pytest.mark.parametrize(("first", "last"), [(500, 4000), (4000, 500)])
def test_a_chirp_sweeps_from_its_first_to_its_last_frequency(first, last):
    sound = note("chirp", 1.0, u0=at(first, 60, 7000), u1=at(last, 60, 7000), u2=at(1, 0.4, 2.5), u5=1.0, u6=0.0)
    middle = len(sound) // 2
    heard = [centroid(piece) for piece in (sound[:1600], sound[middle - 800 : middle + 800], sound[-1600:])]
    expected = [first * (last / first) ** way for way in (0.05, 0.5, 0.95)]
    assert heard == pytest.approx(expected, rel=0.1)


def test_pulses_and_engines_have_the_harmonics_of_their_rate():
    for family, u in (("pulses", {"u0": at(200, 15, 1500), "u1": 0.0, "u5": 1.0}),):
        hz, power = spectrum(note(family, 1.0, **u))
        nearest = (hz / 200 - (hz / 200).round()).abs() * 200
        assert power[nearest < 10].sum() > 0.95 * power.sum()
        assert power[(hz - 1000).abs() < 10].max() > 1e-3 * power.max()


def test_pulses_sum_their_geometric_series():
    rate = 96_000
    f0, bright = 100.0, 600.0
    fixed = {"u0": at(f0, 15, 1500), "u1": 0.0, "u3": at(bright, 200, rate / 9), "u5": 1.0}
    sound = note("pulses", 0.2, rate, **fixed).double()
    r, time_s = np.exp(-f0 / bright), torch.arange(len(sound), dtype=torch.float64) / rate
    series = sum(r**k * torch.sin(2 * np.pi * k * f0 * time_s) for k in range(1, 60))
    inner = slice(len(sound) // 3, len(sound) // 3 + 2000)  # its pitch wanders by up to 0.3 % at the least
    scale = float((sound[inner] * series[inner]).sum() / series[inner].square().sum())
    assert torch.corrcoef(torch.stack([sound[inner], series[inner]]))[0, 1] > 0.98 and scale > 0


def test_a_store_is_made_once_grows_and_is_read_by_pretraining(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "CLIPS_PER_SHARD", 8)
    monkeypatch.setattr(stores, "CLIP_S", (0.5, 1.0))
    out = tmp_path / "store"
    small = stores.make_store(out, 8 / 3600, num_workers=0)
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    grown = stores.make_store(out, 20 / 3600, num_workers=0)
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert len(before.keys() & kept.keys()) >= 2 and all(kept[name] == before[name] for name in before.keys() & kept)
    mark = (out / stores.MARK).stat().st_mtime_ns
    assert stores.make_store(out, 20 / 3600, num_workers=0).clips == grown.clips
    assert (out / stores.MARK).stat().st_mtime_ns == mark  # nothing is written where nothing is to be made
    path = sorted((out / "shards").glob("*.npy"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 64]))
    with pytest.warns(UserWarning, match=rf"damaged, and made again in .*: {path.name}: its checksum is another"):
        stores.make_store(out, 20 / 3600, num_workers=0)
    assert path.read_bytes() == content
    assert grown.info["duration_s"] >= 20 and len(grown) > len(small) and grown.fingerprint != small.fingerprint
    again = stores.make_store(tmp_path / "again", 20 / 3600, num_workers=0)
    assert again.fingerprint == grown.fingerprint and again.mean == grown.mean
    for index, stored in enumerate(grown.clips):
        length_s = (stored.num_frames - 1) / 100
        assert stored.clip.label == leading_family(index, length_s) and np.array_equal(
            grown.log_mel(index), again.log_mel(index)
        )
    assert not any(path.suffix in (".wav", ".flac") for path in tmp_path.rglob("*"))
    assert len(set(grown.recordings().tolist())) == len(grown)
    recipe = dataclasses.replace(RECIPES["micro-msm-mae"], steps=2, batch_size=4)
    assert loop.pretrain(recipe, Store.open(out), tmp_path / "run")


def test_a_store_of_recordings_is_never_overwritten(store):
    with pytest.raises(ValueError, match="holds a store of recordings: choose another folder"):
        stores.make_store(store.folder, 0.01)
    with pytest.raises(ValueError, match="hours must be positive"):
        stores.make_store(store.folder, 0.0)


def loader_of(store: Store, share: float, **changes) -> Loader:
    maker = ProceduralCrops(store.spec, seed=3) if share else None
    settings = {"crop_frames": 96, "batch_size": 10, "seed": 3, "maker": maker, "made_share": share}
    return Loader(store, **settings | changes)


def test_that_share_of_each_batch_is_made_and_the_rest_is_recorded_as_before(store):
    plain, mixed = loader_of(store, 0.0), loader_of(store, 0.25)
    counts = [int((mixed.part(step).clip == -1).sum()) for step in range(8)]
    assert set(counts) == {2, 3} and sum(counts) == 20
    batch, before = mixed.part(4), plain.part(4)
    assert set(batch.clip.tolist()) - {-1} <= set(before.clip.tolist())
    made = batch.clip == -1
    assert (batch.num_valid_frames[made] == 96).all() and batch.log_mel.isfinite().all()
    assert batch.log_mel[made].std(dim=(1, 2)).min() > 0.05


def test_a_batch_with_made_crops_depends_on_seed_step_and_part_alone(store):
    fresh, used = loader_of(store, 0.5), loader_of(store, 0.5)
    for step in range(3):
        used.part(step)
    assert torch.equal(fresh.part(5).log_mel, used.part(5).log_mel)
    whole, parts = fresh.part(5), [used.part(5, part, 5) for part in range(5)]
    assert torch.equal(torch.cat([part.clip for part in parts]), whole.clip)
    made = whole.clip == -1
    of_parts = torch.cat([part.log_mel[part.clip == -1] for part in parts])
    assert torch.allclose(of_parts, whole.log_mel[made], atol=0.05)  # logarithms of near silence round visibly


def test_a_made_crop_is_normalised_log_mels_of_the_sound_of_its_number(store):
    spec = store.spec
    [crop] = ProceduralCrops(spec, seed=3).crops([12], 96)
    sound = synthesise([12], 99 * 160 / RATE, RATE, seed=3)
    expected = LogMel(spec)(sound)[0, :, 2:98]
    assert torch.allclose(crop, expected, atol=1e-3)
    alone = loader_of(ProceduralSound(spec), 1.0, batch_size=4)
    batch = alone.part(3)
    assert torch.allclose(batch.log_mel[0], (crop - alone.store.mean) / alone.store.std, atol=1e-3)
    assert batch.clip.tolist() == [-1] * 4


def test_procedural_sound_in_place_of_a_store():
    sound = ProceduralSound()
    batch = loader_of(sound, 1.0, batch_size=64, crop_frames=208).part(0)
    assert abs(float(batch.log_mel.mean())) < 0.3 and 0.8 < float(batch.log_mel.std()) < 1.2
    copy = pickle.loads(pickle.dumps(sound))
    assert (copy.mean, copy.std, copy.fingerprint) == (sound.mean, sound.std, sound.fingerprint)
    assert ProceduralSound(LogMelSpec(num_mels=64)).fingerprint != sound.fingerprint


@pytest.mark.slow
def test_runs_on_procedural_sound_are_made_by_name_and_reported(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ("--recipe", "micro-msm-mae", "--steps", "3", "--batch-size", "4", "--strategy", "dwm", "--threads", "1")
    main(["pretrain", "procedural", "--out", "run", *options])
    assert Recipe.load(tmp_path / "run" / "recipe.json").procedural_share == 1.0
    main(["pretrain", "procedural", "--out", "run", "--resume"])
    main(["report", "run", "--out", "report"])
    assert "without end" in next((tmp_path / "report").glob("*.html")).read_text()
    main(["pretrain", "procedural", *options, "--dry-run"])
    assert "procedural_share" in capsys.readouterr().out
    for arguments, message in (
        (["pretrain", "procedural", "--out", "b", "--recipe", "base-m2d"], "has no epochs: set --steps"),
        (["pretrain", "procedural", "--out", "c", *options, "--strategy", "hard"], "recordings that come again"),
        (["demo", "--hours", "2", "--out", "e"], "hours are of procedural sound only"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err.replace("\n", " ")
    with pytest.raises(ValueError, match=r"procedural_share must be from 0 to 1, got 2"):
        dataclasses.replace(RECIPES["micro-msm-mae"], procedural_share=2.0)
    (tmp_path / "procedural").mkdir()
    with pytest.raises(SystemExit):
        main(["pretrain", "procedural", "--out", "f", *options])
    assert "a folder is called so too" in capsys.readouterr().err.replace("\n", " ")


def test_loss_guided_masks_take_made_crops_beside_recordings(store, tmp_path):
    recipe = dataclasses.replace(
        RECIPES["micro-msm-mae"], steps=3, batch_size=6, strategy="hard", procedural_share=0.5, hint_start=0.0
    )
    assert loop.pretrain(recipe, store, tmp_path / "run")
