"""What is said of recordings that are used: once a kind, with a list; and the front end that sees more of them."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.audio import Note
from melmask.cli.main import main
from melmask.cli.steps import front_end_of
from melmask.data.notes import UNSEEN_NOTE, seeing, summed_up
from melmask.data.prepare import prepare
from melmask.data.store import NOTES, Store
from melmask.encoders.recordings import log_mels
from melmask.logmel import PRESETS, LogMelSpec

LOST = {  # rate in Hz, frequency of the sound, seconds
    "bat_45k": (384_000, 45e3, 1),
    "bat_82k": (384_000, 82e3, 1),
    "quake_3": (100, 3, 60),
    "quake_12": (100, 12, 60),
    "heart_30": (250, 30, 20),
}


def write_lost(folder: Path, names: list[str]) -> list[Path]:
    """Calls of bats, a seismic signal and heart beats, at the rates they are recorded at."""
    folder.mkdir(exist_ok=True)
    for name in names:
        rate_hz, hz, seconds = LOST[name]
        time_s = np.arange(rate_hz * seconds) / rate_hz
        pulses = 0.5 * np.sin(2 * np.pi * hz * time_s) * np.sin(np.pi * 1.2 * time_s) ** 4
        soundfile.write(folder / f"{name}.wav", pulses, rate_hz, subtype="PCM_24")
    return [folder / f"{name}.wav" for name in names]


def remedy_of(store: Store) -> list[str]:
    """The settings that the notes of a store recommend."""
    (settings,) = {noted.detail.partition("--front-end ")[2] for noted in store.notes}
    return settings.split()


def mean_cosine(store: Store) -> float:
    a, b = (store.log_mel(row).astype(np.float32).mean(axis=0) for row in (0, 1))
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("names", [["bat_45k", "bat_82k"], ["quake_3", "quake_12"], ["heart_30"]])
def test_what_the_front_end_cannot_see_is_said_with_the_one_that_can(names: list[str], tmp_path: Path) -> None:
    write_lost(tmp_path / "lost", names)
    store = prepare([tmp_path / "lost"], tmp_path / "store", num_workers=0)
    assert [noted.kind for noted in store.notes] == [UNSEEN_NOTE] * len(names)
    assert all("outside of 50 to 8000 Hz" in noted.detail for noted in store.notes)
    share = float(store.notes[0].detail.partition("Hz: ")[2].partition("%")[0])
    assert share > 85
    other = prepare([tmp_path / "lost"], tmp_path / "other", spec=front_end_of(remedy_of(store)), num_workers=0)
    assert other.notes == []
    if len(names) == 2:
        assert mean_cosine(other) < 0.7


def test_the_command_says_it_in_one_line_and_lists_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lost(tmp_path / "lost", list(LOST)[:2])
    wave = 0.3 * np.sin(np.arange(16_000))
    for number in range(3):
        soundfile.write(tmp_path / f"lost/anti{number}.wav", np.stack([wave, -wave], axis=1), 16_000)
    main(["prepare", str(tmp_path / "lost"), "--out", str(tmp_path / "store"), "--workers", "0"])
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith("note: channels cancel: 3 recordings, such as anti0.wav: ")
    assert notes[1].startswith(f"note: {UNSEEN_NOTE}: 2 recordings, such as bat_45k.wav: ")
    assert all(note.endswith(f"; all in {tmp_path / 'store' / NOTES}") for note in notes)
    with (tmp_path / "store" / NOTES).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 5


def test_the_front_end_is_set_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write_lost(tmp_path / "lost", ["quake_3"])
    settings = ["sample_rate_hz=100", "fmin_hz=0.3", "fmax_hz=50"]
    arguments = ["prepare", str(paths[0].parent), "--out", str(tmp_path / "store"), "--workers", "0", "--front-end"]
    main([*arguments, *settings])
    assert Store.open(tmp_path / "store").spec == LogMelSpec(100, 400, 160, 80, 0.3, 50.0)
    for wrong in ("rate=5", "n_fft=many", "n_fft"):
        with pytest.raises(SystemExit):
            main([*arguments, wrong])
        assert wrong.partition("=")[0] in capsys.readouterr().err


def test_embedding_warns_of_it_once(tmp_path: Path) -> None:
    paths = write_lost(tmp_path / "lost", list(LOST)[:2])
    with pytest.warns(UserWarning, match=f"{UNSEEN_NOTE}: 2 recordings") as warned:
        assert len(list(log_mels(paths, None, LogMelSpec()))) == 2
    assert len(warned) == 1
    wave = soundfile.read(paths[0], dtype="float32")[0]
    with pytest.warns(UserWarning, match=f"{UNSEEN_NOTE}: 1 recording, such as the waveform"):
        list(log_mels(wave, 384_000, LogMelSpec()))


def test_a_store_without_notes_has_no_table_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "sounds"
    wave = 0.3 * np.sin(np.arange(16_000))
    folder.mkdir()
    soundfile.write(folder / "a.wav", np.stack([wave, -wave], axis=1), 16_000)
    assert len(prepare([folder], tmp_path / "store", num_workers=0).notes) == 1
    soundfile.write(folder / "a.wav", wave, 16_000)
    assert prepare([folder], tmp_path / "store", num_workers=0).notes == []
    assert not (tmp_path / "store" / NOTES).exists()


@pytest.mark.parametrize("rate_hz", [100, 250, 1000, 4000, 44_100, 96_000, 192_000, 384_000, 500_000])
def test_there_is_a_front_end_for_every_rate(rate_hz: int) -> None:
    spec = seeing(LogMelSpec(), rate_hz)
    assert spec is not None and spec.fmax_hz == rate_hz / 2 and spec.num_mels == 80


def test_notes_are_summed_up_by_kind() -> None:
    notes = [("a", Note("one", "x")), ("b", Note("two", "y")), ("c", Note("one", "z"))]
    assert summed_up(notes) == ["one: 2 recordings, such as a: x", "two: 1 recording, such as b: y"]
    assert summed_up(notes, "notes.csv")[0].endswith("; all in notes.csv")


def test_a_rate_far_from_the_front_ends_is_said_once_a_kind_and_presets_lose_nothing(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, rate_hz in (("heart", 2000), ("seismic", 250), ("bat", 384_000), ("bat2", 384_000), ("studio", 48_000)):
        time_s = np.arange(2 * rate_hz) / rate_hz
        sound = 0.3 * np.sin(2 * np.pi * 90 * time_s) + 0.01 * rng.standard_normal(len(time_s))  # within 50 to 8000 Hz
        soundfile.write(tmp_path / f"{name}.wav", sound, rate_hz, subtype="PCM_24")
    main(["prepare", str(tmp_path), "--out", str(tmp_path / "store"), "--workers", "0"])
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("recorded at a far higher rate: 2 recordings, such as bat.wav") == 1
    assert printed.count("recorded at a far lower rate: 2 recordings, such as heart.wav") == 1
    assert "384,000 Hz, prepared at 16,000 Hz: all above 8,000 Hz is lost" in printed
    details = {noted.path.stem: noted.detail for noted in Store.open(tmp_path / "store").notes}
    assert "it has nothing above 125 Hz" in details["seismic"] and "studio" not in details
    for preset, name in (("heart", "heart"), ("bats", "bat")):
        out = tmp_path / preset
        main(["prepare", str(tmp_path / f"{name}.wav"), "--out", str(out), "--preset", preset, "--workers", "0"])
        store = Store.open(out)
        assert store.spec == PRESETS[preset] and store.spec.num_mels % 16 == 0
        assert not [noted for noted in store.notes if "far" in noted.kind]
    settings = ["--sample-rate", "48000", "--num-mels", "128", "--fmin", "20", "--window-ms", "30", "--hop-ms", "12.5"]
    main(["prepare", str(tmp_path / "studio.wav"), "--out", str(tmp_path / "own"), *settings, "--workers", "0"])
    assert Store.open(tmp_path / "own").spec == LogMelSpec(48_000, 1440, 600, 128, 20.0, 24_000.0)
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path / "studio.wav"), "--out", str(tmp_path / "x"), "--fmax", "9000"])
    assert "fmax_hz 9000.0 exceeds half the sample rate" in capsys.readouterr().err
