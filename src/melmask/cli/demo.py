"""The command demo: the built-in corpus."""

from melmask.cli.console import counted_bar, print_path
from melmask.cli.options import Folder


def demo(out: Folder, seed: int = 0) -> None:
    """Make the built-in corpus: instruments and speech, with labels.

    Args:
        out: the folder for recordings and manifests.
        seed: of all random choices.
    """
    from melmask.demo.corpus import make_demo

    with counted_bar("making the built-in corpus") as show:
        manifests = make_demo(out, seed=seed, progress=show)
    for manifest in manifests:
        print_path(manifest)
