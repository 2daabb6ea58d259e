"""The command demo: the built-in corpus."""

from pathlib import Path

from melmask.cli.console import bar, console


def demo(out: Path, seed: int = 0) -> None:
    """Make the built-in corpus: sampled instruments and synthesised speech, with labels.

    Args:
        out: the folder for recordings and manifests.
        seed: of all variation.
    """
    from melmask.demo.corpus import make_demo

    with bar("making the built-in corpus") as (progress, task):

        def show(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        manifests = make_demo(out, seed=seed, progress=show)
    for manifest in manifests:
        console.print(f"[bold]{manifest}[/]")
