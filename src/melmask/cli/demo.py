"""The command demo: the built-in corpus."""

from melmask.cli.console import bar, print_path
from melmask.cli.options import Folder


def demo(out: Folder, seed: int = 0) -> None:
    """Make the built-in corpus: instruments and speech, with labels.

    Args:
        out: the folder for recordings and manifests.
        seed: of all random choices.
    """
    from melmask.demo.corpus import make_demo

    with bar("making the built-in corpus") as (progress, task):
        manifests = make_demo(
            out, seed=seed, progress=lambda done, total: progress.update(task, completed=done, total=total)
        )
    for manifest in manifests:
        print_path(manifest)
