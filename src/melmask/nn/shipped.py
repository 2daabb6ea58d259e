"""Encoders that come with melmask: their names, and the files in the package that hold them."""

from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = {"tiny": "tiny.safetensors"}  # name -> file in WEIGHTS
PREFIX = "shipped:"


def shipped_file(name: str | Path) -> Path | None:
    """The file of an encoder that comes with melmask, by its name; None for any other name.

    A Path is never one of these names: it stands for a file or folder. A name stands for neither in silence where a
    file or folder is called so too: ``./tiny`` is that one, and ``shipped:tiny`` the encoder that comes with melmask.

    Args:
        name: ``tiny``, or ``shipped:tiny``.

    Raises:
        ValueError: nothing is shipped under ``shipped:NAME``, there is a file or folder of the name, or the installed
            package lacks the file.

    >>> shipped_file("runs/tiny"), shipped_file(Path("tiny"))
    (None, None)
    """
    if isinstance(name, Path):
        return None
    is_explicit, called = name.startswith(PREFIX), name.removeprefix(PREFIX)
    if called not in SHIPPED:
        if is_explicit:
            raise ValueError(f"no encoder {called!r} comes with melmask: choose from {', '.join(SHIPPED)}")
        return None
    if not is_explicit and Path(called).exists():
        raise ValueError(
            f"{called} is an encoder that comes with melmask, and there is a file or folder of that name here: give "
            f"./{called} for yours, or {PREFIX}{called}"
        )
    file = WEIGHTS / SHIPPED[called]
    if not file.exists():
        raise ValueError(f"the encoder {called} is missing from this installation ({file}): install melmask again")
    return file
