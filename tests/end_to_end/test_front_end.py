"""A front end of another rate and other bands goes all the way: every command takes it from the store, run or model."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.cli.main import main
from melmask.logmel import front_end
from melmask.models.file import load_model
from melmask.nn.encoder_file import ENCODER, EncoderFile

SPEC = front_end("heart", sample_rate_hz=8_000, num_mels=40)


@pytest.fixture
def run(recordings, tmp_path, monkeypatch, capsys):
    """Calls a command in a folder with a few sounds; its exit status, and its answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("melmask.data.prepare.num_cores", lambda: 0)
    lines = recordings.read_text().splitlines()
    soundfile.write("high.wav", 0.5 * np.sin(2 * np.pi * 6_000 * np.arange(16_000) / 16_000), 16_000)
    listed = [*(f"{recordings.parent}/{line}" for line in lines[1:12]), "high.wav,falling,3,g6"]
    Path("clips.csv").write_text("\n".join([lines[0], *listed]))
    events = [f"{recordings.parent}/{i:02}.wav,0,0.3,{'up' if i % 2 else 'down'},{i // 2 % 3}" for i in range(12)]
    Path("events.csv").write_text("\n".join(["path,onset_s,offset_s,label,fold", *events]))

    def called(line: str) -> tuple[int, dict[str, object]]:
        with pytest.raises(SystemExit) as ended:
            main([*line.split(), "--json"])
        printed, told = capsys.readouterr()
        return int(ended.value.code or 0), json.loads(printed) | {"told": told}

    return called


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:40 mel bands are no multiple of a patch's 16")
def test_a_front_end_is_carried_from_prepare_to_every_command(run, recordings, shipped_tiny):
    status, prepared = run("prepare clips.csv --out store --preset heart --sample-rate 8000 --num-mels 40")
    assert status == 0 and prepared["next"].endswith(" --recipe quick-msm-mae --init random")  # tiny's is another
    train, query = "pretrain store --recipe micro-msm-mae --steps 2", recordings.parent / "03.wav"
    status, refused = run(f"{train} --out refused --init tiny")
    assert status == 2 and "--init random" in refused["error"]
    assert run(f"{train} --out run")[0] == 0
    assert EncoderFile.load(Path("run") / ENCODER).front_end.spec == SPEC
    assert run("evaluate run --task clips.csv --probe knn --save-probe model")[0] == 0
    detect = "detect run --task events.csv --out found.csv --seeds 1 --no-baselines"
    assert run(f"{detect} --save-model detector")[0] == 0
    assert run("embed run clips.csv --out e.npz")[0] == 0
    encoder = load_model("model").encoder
    assert encoder.spec == load_model("detector").encoder.spec == SPEC
    with np.load("e.npz") as file:
        assert np.allclose(file["features"][0], encoder.embed(recordings.parent / "00.wav"), atol=1e-6)
    for command in ("predict model clips.csv --window-s 0.3", "predict detector clips.csv"):
        status, used = run(f"{command} --out predicted.csv")
        assert status == 0 and used["used"] == 12
        assert (
            "unseen by the front end" in str(used["notes"]) and "recording 0" not in used["told"]
        )  # once, by its name
    assert run("index run clips.csv --out index --window-s 0.5")[0] == 0
    status, found = run(f"search index {query}")
    assert status == 0 and found["hits"][0]["path"] == str(query) and found["hits"][0]["similarity"] > 0.999
    status, refused = run(f"search index {query} --encoder tiny")
    assert status == 2 and "another encoder" in refused["error"]
    assert run("novelty --good clips.csv --test clips.csv --encoder run --false-alarms 0.2")[0] == 0
    assert run("report run --map e.npz --out report")[0] == 0
    assert "8,000 Hz, 40 mels" in Path("report/report.html").read_text()
