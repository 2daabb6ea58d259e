"""The command prepare: recordings to a packed store."""

from rich.markup import escape
from tyro.conf import Positional

from melmask.cli.console import answer, console, print_next, print_notes, print_path
from melmask.cli.options import (
    Folder,
    FrontEnd,
    MaxMemory,
    OptionalCount,
    OptionalHz,
    OptionalNumber,
    Preset,
    Sources,
    Verify,
    Workers,
)


def prepare(
    sources: Positional[Sources],
    out: Folder,
    workers: Workers = None,
    preset: Preset = "speech",
    sample_rate: OptionalHz = None,
    num_mels: OptionalCount = None,
    fmin: OptionalNumber = None,
    fmax: OptionalNumber = None,
    window_ms: OptionalNumber = None,
    hop_ms: OptionalNumber = None,
    front_end: FrontEnd = (),
    verify: Verify = "first",
    max_memory: MaxMemory = None,
) -> None:
    """Turn recordings into a packed store of log-mel spectrograms.

    Example: melmask prepare recordings --out store

    Args:
        out: the store's folder; a store that is already there is completed, brought up to date, and what is damaged
            made again.
        preset: a front end by name: speech is 16 kHz and 80 bands to 8 kHz, bats 256 kHz and 80 bands from 10 to
            128 kHz, heart 2 kHz and 48 bands from 20 to 1,000 Hz.
        sample_rate: that recordings are resampled to, in Hz; window and hop stay as long, and fmax is its half.
        num_mels: mel bands; a multiple of 16, the height of a patch.
        fmin: lower edge of the lowest band in Hz.
        fmax: upper edge of the highest band in Hz.
        window_ms: length of the analysis window in milliseconds.
        hop_ms: from one frame to the next in milliseconds.
    """
    from melmask.cli import steps
    from melmask.data.store import NOTES, REJECTED
    from melmask.logmel import LogMelSpec
    from melmask.logmel import front_end as make_front_end

    base = make_front_end(
        preset,
        sample_rate_hz=sample_rate,
        num_mels=num_mels,
        fmin_hz=fmin,
        fmax_hz=fmax,
        window_ms=window_ms,
        hop_ms=hop_ms,
    )
    spec = steps.front_end_of(front_end, base)
    store = steps.prepare_shown(sources, out, workers, spec, verify, max_memory)
    print_notes(steps.notes_of(store.notes, str(out / NOTES)))
    if store.rejected:
        console.print(steps.rejections_table(store.rejected))
    hours = store.info["num_frames"] / store.spec.frames_per_s / 3600
    print_path(
        out,
        after=f": {len(store.clips):,} clips, {hours:.2f} h, log-mel mean {store.mean:.3f}, "
        f"standard deviation {store.std:.3f}",
    )
    console.print(escape(steps.accounted(len(store), store.rejected, out / REJECTED)), soft_wrap=True)
    answer.update(clips=len(store.clips), hours=hours, mean=store.mean, std=store.std, rejected=len(store.rejected))
    start = () if store.spec == LogMelSpec() else ("--init", "random")  # tiny has the default front end
    print_next("melmask", "pretrain", out, "--out", "run", "--recipe", "quick-msm-mae", *start)
    steps.exit_if_left_out([store.rejected])
