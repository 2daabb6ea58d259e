"""The command predict: a trained model on new recordings."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from melmask.cli.console import answer, counted_bar, print_line, print_next, print_notes, print_path
from melmask.cli.options import File, ModelAndSources


def predict(
    sources: Positional[ModelAndSources],
    out: File = Path("predictions.csv"),
    format: Literal["csv", "parquet", "audacity", "raven"] | None = None,
    window_s: float = 0.0,
    hop_s: float = 0.0,
    top_k: int = 0,
    accuracy: float | None = None,
) -> None:
    """Apply a trained classifier or event detector to recordings.

    Example: melmask predict model recordings --window-s 2 --hop-s 1

    A classifier gives the probabilities of its classes, of whole recordings or of windows; a detector gives events.

    Recordings that cannot be used are listed beside the output, in FILE.rejected.csv.

    Args:
        out: the file to write: .csv, .parquet, .txt for a label track of Audacity, .selections.txt for a table of
            Raven; of tracks of several recordings, a folder.
        format: where the name of the output does not say it.
        window_s: length of the windows in seconds; without it whole recordings, or windows of the length of the clips
            that the model was trained on.
        hop_s: from the start of one window to that of the next, in seconds; without it windows are side by side.
        top_k: write only so many classes, the most likely first; 0: the probabilities of all.
        accuracy: abstain below the confidence from which on the model was right so often on held-out clips, such as
            0.95.
    """
    from melmask.audio import Note
    from melmask.cli.steps import accounted, exit_if_left_out, list_rejected
    from melmask.data.manifest import Rejected
    from melmask.data.notes import summed_up
    from melmask.models.base import PredictSettings
    from melmask.models.file import load_model
    from melmask.models.run import listed, predict_clips
    from melmask.models.tables import TRACKS, format_of, written
    from melmask.models.windows import Windows

    if len(sources) < 2:
        raise ValueError(f"{sources[0]} alone: name a model and recordings, as in melmask predict MODEL my.wav")
    kind = format_of(out, format)
    model = load_model(sources[0])
    settings = PredictSettings(Windows(window_s, hop_s) if window_s or hop_s else None, top_k, accuracy)
    model.check(settings)
    if model.about:
        print_line(f"model: {model.about}")
    clips, rejected = listed(sources[1:], sys.stdin)
    recordings = list(dict.fromkeys(clip.path for clip in clips))
    spec = model.encoder.spec
    notes: list[tuple[str, Note]] = []
    fmax_hz = spec.fmax_hz if spec else model.encoder.sample_rate_hz / 2
    with ExitStack() as stack:
        write = stack.enter_context(written(out, kind, model.columns(settings), recordings, fmax_hz))
        show = stack.enter_context(counted_bar("predicting"))

        def noted(path: Path, note: Note) -> None:
            notes.append((path.name, note))

        for number, found in enumerate(predict_clips(model, clips, settings, noted), start=1):
            if isinstance(found, Rejected):
                rejected.append(found)
            else:
                write(found)
            show(number, len(recordings))
    beside = list_rejected(out, rejected)
    print_notes(summed_up(notes))
    faulty = [one for one in rejected if not one.is_excluded]
    for one in faulty[:5]:
        print_line(f"{one.path} was left out: {one.reason}: {one.detail}", style="red")
    num_used = len(recordings) - len(faulty)
    answer.update(used=num_used, rejected=len(faulty))
    print_path(out, after=f": {num_used:,} recordings")
    print_line(accounted(num_used, rejected, beside))
    if kind in TRACKS:
        print_next("melmask", "docs", "predict")
    else:
        print_next("melmask", "predict", *sources, "--out", "tracks", "--format", "audacity")
    exit_if_left_out([rejected])
