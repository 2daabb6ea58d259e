"""The command import: weights that others published, as an encoder file."""

from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from melmask.cli.console import answer, console, print_next, print_path
from melmask.cli.options import Folder, Weights
from melmask.nn.published import AS_PUBLISHED, Unstated


def import_(weights: Positional[Weights], out: Folder, unstated: OmitArgPrefixes[Unstated] = AS_PUBLISHED) -> None:
    """Make a run folder of weights that others published.

    Example: melmask import weights.pth --out imported

    Every command that takes a run's encoder takes the folder.

    It holds the encoder alone: `melmask pretrain --init` reads the file itself.

    Args:
        out: the folder to write.
    """
    from melmask.nn.encoder_file import ENCODER, EncoderFile, FrontEnd
    from melmask.nn.published import read_published

    if (out / ENCODER).exists():
        raise ValueError(f"{out} already holds an encoder: choose another folder")
    found = read_published(weights, unstated)
    out.mkdir(parents=True, exist_ok=True)
    EncoderFile(found.encoder, FrontEnd(found.spec, found.mean, found.std), found.crop_frames).save(out / ENCODER)
    table = Table(title=weights.name, title_justify="left", show_header=False)
    size, spec = found.encoder.size, found.spec
    rows = {
        "encoder": f"{size.dim} wide, {size.depth} blocks, {size.heads} heads",
        "patches": "{} mel bands x {} frames".format(*found.encoder.patch_shape),
        "positions": found.encoder.positions.order,
        "trained on": f"{found.crop_frames} frames, {found.crop_frames / spec.frames_per_s:.2f} s",
        "front end": f"{spec.sample_rate_hz:,} Hz, {spec.num_mels} mel bands, {spec.fmin_hz:g} to {spec.fmax_hz:g} Hz",
        "normalised by": f"mean {found.mean:.4g}, standard deviation {found.std:.4g}",
        "not imported": ", ".join(dict.fromkeys(name.partition(".")[0] for name in found.beside)) or "nothing",
    }
    for row in rows.items():
        table.add_row(*row)
    answer.update(rows)
    console.print(table)
    print_path(out, after=": check the front end and the statistics against what was published with the weights")
    print_next("melmask", "evaluate", out, "--task", "TABLE")
