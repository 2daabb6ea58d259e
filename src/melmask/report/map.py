"""The map of a report: recordings laid out by their embeddings, each of which plays its sound."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from markupsafe import Markup

from melmask.audio import AudioError
from melmask.data.manifest import Clip
from melmask.encoders.embeddings import Embeddings
from melmask.report import page
from melmask.report.sounds import MAX_S, as_url, excerpt
from melmask.viz.layout import in_two_dimensions
from melmask.viz.style import label_colours

NUM_SHOWN = 300  # recordings; of 4 s at most they are under 9 MB in all
MARGIN = 3.0  # between the outermost points and the border, in percent
SHAPES = (
    '<circle id="shape-0" r="5.5"/>',
    '<rect id="shape-1" x="-5" y="-5" width="10" height="10"/>',
    '<path id="shape-2" d="M0 -6.5 6.2 5 -6.2 5Z"/>',
    '<path id="shape-3" d="M0 -7 6 0 0 7 -6 0Z"/>',
    '<path id="shape-4" d="M-2 -6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z"/>',
)
NOTE = (
    "Recordings that the encoder takes for similar lie close together. A click or a tap plays the nearest one; with "
    "the keyboard, tab to the map and move by the arrow keys. A label of the legend picks out its recordings. The axes "
    "have no unit."
)


@dataclass(frozen=True)
class Key:
    """What the points of one look have in common, an entry of the legend.

    Args:
        source: the manifest or folder that lists the recordings.
        label: their label, or where there are no labels, the folder that they lie in.
    """

    source: str
    label: str


@dataclass(frozen=True)
class Look:
    """How the points of one key are drawn."""

    number: int
    shape: int
    colour: str


def keys_of(clips: Sequence[Clip]) -> list[Key]:
    """What each recording is coloured by: its label; without labels in its source, its folder."""
    labelled = {clip.source for clip in clips if clip.label}
    return [
        Key(clip.source, (clip.label or "no label") if clip.source in labelled else clip.path.parent.name)
        for clip in clips
    ]


def evenly(keys: Sequence[Key], num_shown: int) -> list[int]:
    """Rows of a sample that has as many of each key as of any other, as far as there are enough.

    Of each key the rows are spread over the whole list.

    >>> evenly([Key("s", label) for label in "aaaaab"], 3)
    [0, 2, 5]
    """
    rows = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    num_of = dict.fromkeys(rows, 0)
    left = min(num_shown, len(keys))
    while left:
        open_keys = [key for key in rows if num_of[key] < len(rows[key])]
        share = max(1, left // len(open_keys))
        for key in open_keys[:left]:
            more = min(share, len(rows[key]) - num_of[key])
            num_of[key] += more
            left -= more
    return sorted(own[i * len(own) // num_of[key]] for key, own in rows.items() for i in range(num_of[key]))


def map_section(embeddings: Embeddings, file: Path, num_shown: int = NUM_SHOWN) -> list[Markup]:
    """The section as HTML.

    Args:
        embeddings: of the recordings, which are read for their sounds.
        file: that the embeddings were read from, for its words.
        num_shown: the largest number of recordings that are shown.

    Raises:
        ValueError: there are no embeddings, or some are not finite.
    """
    bad = np.flatnonzero(~np.isfinite(embeddings.features).all(axis=1))
    if len(bad) or not len(embeddings.clips):
        fault = f"that of {embeddings.clips[bad[0]].path} is not finite" if len(bad) else "it holds none"
        raise ValueError(f"{file} has embeddings that make no map: {fault}; embed the recordings again")
    rows = evenly(keys_of(embeddings.clips), num_shown)
    clips = [embeddings.clips[row] for row in rows]
    keys = keys_of(clips)
    places, how = in_two_dimensions(embeddings.features[rows])
    looks = _looks(keys)
    points, faults = [], Counter[str]()
    starts = [embeddings.start_s[row] if embeddings.start_s else None for row in rows]
    for clip, key, place, start_s in zip(clips, keys, places.tolist(), starts, strict=True):
        try:
            sound = as_url(excerpt(clip.path, start_s))
        except AudioError as error:
            sound = ""
            faults[error.reason] += 1
        points.append(_point(clip, key, looks[key], place, sound))
    shown = f"{len(rows):,} of {len(embeddings.clips):,} recordings"
    words = [f"{shown} are shown" + (", chosen evenly over labels." if len(rows) < len(embeddings.clips) else ".")]
    words.append(f"Of those longer than {MAX_S:g} s, {MAX_S:g} s are played; all at the same peak.")
    if faults:
        reasons = ", ".join(f"{reason} ({count:,})" for reason, count in faults.items())
        words.append(f"{faults.total():,} have no sound here: {reasons}.")
    made = f"Embeddings by {embeddings.encoder}, from" if embeddings.encoder else "Embeddings from"
    words.append(f"{made} {file.name}: {embeddings.features.shape[1]:,} standardised dimensions; {how}.")
    script = Markup(files("melmask.report").joinpath("map.js").read_text(encoding="utf-8"))
    return [
        page.part("map", shown, Markup("".join(SHAPES)), points, _legend(keys, looks), " ".join(words), NOTE, script)
    ]


def write_map(embeddings: Embeddings, source: Path, out: Path) -> None:
    """Write the map as a page of its own, which needs no other file.

    Args:
        embeddings: of the recordings.
        source: where they come from, for its words.
        out: the page.

    Raises:
        ValueError: see `map_section`.
    """
    title = f"{len(embeddings.clips):,} sounds of {source.name}"
    page.write(out, title, {"Map": map_section(embeddings, source)}, kicker="melmask map")


def _looks(keys: Sequence[Key]) -> dict[Key, Look]:
    """A shape for every source, and a colour for every label within it; both in the order of their names."""
    looks: dict[Key, Look] = {}
    for shape, source in enumerate(dict.fromkeys(key.source for key in keys)):
        own = sorted({key for key in keys if key.source == source}, key=lambda key: key.label)
        for key, colour in zip(own, label_colours(len(own)), strict=True):
            looks[key] = Look(len(looks), shape % len(SHAPES), colour)
    return looks


def _point(clip: Clip, key: Key, look: Look, place: Sequence[float], sound: str) -> dict[str, object]:
    """A point of the map, as the template takes it: its place in percent."""
    x, y = (f"{MARGIN + (100 - 2 * MARGIN) * part:.2f}" for part in (place[0], 1 - place[1]))
    of_several = f" ({key.source})" if key.source != key.label else ""
    return {"look": look, "x": x, "y": y, "sound": sound, "words": f"{clip.path.name}: {key.label}{of_several}"}


def _legend(keys: Sequence[Key], looks: dict[Key, Look]) -> list[tuple[str, list[dict[str, object]]]]:
    """The labels of each source, for buttons that pick out their points."""
    counts = Counter(keys)
    return [
        (
            source,
            [
                {"look": look, "label": key.label, "count": f"{counts[key]:,}"}
                for key, look in looks.items()
                if key.source == source
            ],
        )
        for source in dict.fromkeys(key.source for key in looks)
    ]
