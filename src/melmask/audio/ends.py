"""Where the sound in a file really ends, whatever its header claims, and a view of the file that says so."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from melmask.audio.facts import Note
from melmask.audio.formats import Content, is_mpeg, starts_mpeg

WRONG_SIZE_BYTES = 64  # some programs miscount a WAV's data by the size of a header; if more is missing, it is audio
PADDING_BYTES = 2**16  # zeros at the end, no more than these, fill the last block of a disk
UNKNOWN_SIZE_BYTES = 0x7FFF0000  # programs that write WAV to a pipe declare at least this size for "until the end"
WRAP_BYTES = 2**32  # sizes of 32 bits start again from 0 here
MAX_FLAC_FRAME_BYTES = 2**20
MPEG_FRAMES_AT_MOST = 64  # an MPEG stream has no more seconds than if it were so many times as large
XING_TOLERANCE_BYTES = 2**14
XING_BYTES = 16  # of its header, as far as it is read
LENGTH_NOTE = "length corrected"
UNREAD_NOTE = "not read to the end"

# Chunks that follow the sound, in files that claim a size too small as well: what they hold is no sound.
METADATA = frozenset(
    b"LIST INFO id3 ID3 bext iXML cue smpl fact PEAK JUNK junk PAD FLLR acid inst afsp DISP cart SAUR LGWV _PMX axml "
    b"chna umid minf elm1 regn ovwf guan wamd strc plst note labl adtl levl link aXML MARK COMT NAME AUTH ANNO INST "
    b"APPL AESD (c) FVER TAG APET SyLp Trkn uuid info strg mark".split()
)
AIFC_PCM = frozenset((b"NONE", b"sowt", b"twos", b"fl32", b"FL32", b"fl64", b"FL64", b"in24", b"in32"))


@dataclass
class View:
    """A file as it should have been written: some bytes replaced, and another end.

    Args:
        content: the file.
        patches: bytes by their offset.
        end: where it ends, in bytes.
        claimed_end: the size that it claims to have; nothing is there.
        note: what to say about it.
        position: of the next byte to be read.
    """

    content: Content
    patches: Mapping[int, bytes]
    end: int
    claimed_end: int | None = None
    note: Note | None = None
    position: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it is the file as it is."""
        return not self.patches and self.claimed_end is None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.claimed_end or self.end}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        """As of a file."""
        return self.position

    def read(self, num_bytes: int) -> bytes:
        """As of a file; between the end and the claimed end there are zeros for who looks at the very last bytes."""
        position = self.position
        if position >= self.end:
            data = bytes(num_bytes if self.claimed_end and self.claimed_end - position <= 256 else 0)
        else:
            data = self.content.read(position, min(num_bytes, self.end - position))
            for offset, patch in self.patches.items():
                if position - len(patch) < offset < position + len(data):
                    data = _patched(data, offset - position, patch)
        self.position += len(data)
        return data


def _patched(data: bytes, offset: int, patch: bytes) -> bytes:
    """The data with a patch, of which a part may lie outside."""
    patch, offset = patch[max(0, -offset) :], max(0, offset)
    patch = patch[: len(data) - offset]
    return data[:offset] + patch + data[offset + len(patch) :]


def corrected(content: Content) -> View | None:
    """The view of a file whose header is wrong about its length or cannot say it; None for an ordinary file."""
    start = content.head[:4]
    if start in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _wav(content)
    if start == b"FORM":
        return _aiff(content)
    if start == b"caff":
        return _caf(content)
    if start == b".snd":
        return _au(content)
    if start == b"fLaC":
        return _flac(content)
    return _mpeg(content) if is_mpeg(content) else None


@dataclass(frozen=True)
class Chunks:
    """How the chunks of a container are laid out.

    Args:
        size: of a chunk, as a format of `struct`.
        alignment: of its start, in bytes.
    """

    size: str
    alignment: int

    def at(self, content: Content, offset: int) -> tuple[bytes, int, int] | None:
        """Name of the chunk at an offset, and where its body starts and should end; None if there is none."""
        num_bytes = 4 + struct.calcsize(self.size)
        header = content.read(offset, num_bytes)
        if len(header) < num_bytes or not all(0x20 <= byte < 0x7F for byte in header[:4]):
            return None
        (size,) = struct.unpack(self.size, header[4:])
        return header[:4], offset + num_bytes, offset + num_bytes + size

    def find(self, content: Content, offset: int, name: bytes) -> tuple[int, int] | None:
        """Where the body of the first such chunk starts and should end."""
        while (found := self.at(content, offset)) is not None:
            if found[0] == name:
                return found[1:]
            if found[2] < found[1]:
                return None  # a negative size
            offset = self.next(found[2])
        return None

    def next(self, end: int) -> int:
        """Where the chunk starts that follows one with that end."""
        return -(-end // self.alignment) * self.alignment

    def is_list(self, content: Content, offset: int) -> bool:
        """Whether chunks of metadata start there, or any chunks that lead to the end of the file."""
        while (found := self.at(content, offset)) is not None:
            if found[0].strip() in METADATA:
                return True
            if found[2] < found[1]:
                return False
            offset = self.next(found[2])
            if found[2] <= content.num_bytes <= offset + 1:
                return True
        return content.read(offset, 3) == b"TAG"  # an ID3v1 tag, as of MP3


def true_end(content: Content, chunks: Chunks, start: int, claimed: int) -> int:
    """Where a chunk of sound ends that starts at ``start`` and should end at ``claimed``, if the file goes on there."""
    rest = content.num_bytes - claimed
    if claimed > start and rest <= PADDING_BYTES and not any(content.read(claimed, rest)):
        return claimed
    end = claimed
    while end < content.num_bytes:  # the size may have wrapped, several times
        if any(chunks.is_list(content, offset) for offset in {chunks.next(end), end}):
            return end
        end += WRAP_BYTES
    return content.num_bytes


def _length_note(start: int, claimed: int, end: int) -> Note:
    told = "that it was never finished" if claimed <= start else f"{claimed - start:,} bytes of audio"
    return Note(LENGTH_NOTE, f"its header says {told}; it holds {end - start:,} bytes, which were all read")


def _wav(content: Content) -> View | None:
    order = ">" if content.head[:4] == b"RIFX" else "<"
    chunks = Chunks(f"{order}I", 2)
    found = chunks.find(content, 12, b"data")
    if found is None:
        return None
    start, claimed = found
    sizes_64 = chunks.find(content, 12, b"ds64") if content.head[:4] in (b"RF64", b"BW64") else None
    if sizes_64 is not None:
        claimed = start + struct.unpack("<Q", content.read(sizes_64[0] + 8, 8))[0]
    elif claimed - start >= UNKNOWN_SIZE_BYTES and claimed >= content.num_bytes:
        return None  # written to a pipe: libsndfile reads it to the end
    if claimed + WRONG_SIZE_BYTES >= content.num_bytes:
        return None
    end = true_end(content, chunks, start, claimed)
    if end <= claimed + WRONG_SIZE_BYTES:
        return _with_second(content, chunks, claimed)
    note = _length_note(start, claimed, end)
    if sizes_64 is not None:
        return View(content, {sizes_64[0] + 8: struct.pack("<Q", end - start)}, end, note=note)
    # libsndfile reads a file of these sizes to its end, also beyond 4 GB.
    patches = {4: struct.pack(f"{order}I", 8), start - 4: struct.pack(f"{order}I", 0)}
    return View(content, patches, end, note=note)


def _with_second(content: Content, chunks: Chunks, claimed: int) -> View | None:
    """A WAV with a second chunk of sound, which is said, since libsndfile reads the first only; None for any other."""
    second = chunks.find(content, chunks.next(claimed), b"data")
    if second is None or second[1] - second[0] <= WRONG_SIZE_BYTES:
        return None
    detail = f"{second[1] - second[0]:,} bytes of audio in a second data chunk were not read; export it again as one"
    return View(content, {}, claimed, note=Note(UNREAD_NOTE, detail))  # without the second, which it would stumble over


def _aiff(content: Content) -> View | None:
    chunks = Chunks(">I", 2)
    sound, common = chunks.find(content, 12, b"SSND"), chunks.find(content, 12, b"COMM")
    if sound is None or common is None or sound[1] + WRONG_SIZE_BYTES >= content.num_bytes:
        return None
    start, claimed = sound[0] + 8, max(sound[1], sound[0] + 8)
    end = true_end(content, chunks, start, claimed)
    num_channels, _, num_bits = struct.unpack(">hIh", content.read(common[0], 8))
    frame_bytes = num_channels * (-(-num_bits // 8))
    if content.head[8:12] == b"AIFC" and content.read(common[0] + 18, 4) not in AIFC_PCM:
        return None
    if end <= claimed + WRONG_SIZE_BYTES or frame_bytes < 1:
        return None
    patches = {
        4: struct.pack(">I", end - 8),
        common[0] + 2: struct.pack(">I", (end - start) // frame_bytes),
        sound[0] - 4: struct.pack(">I", end - sound[0]),
    }
    return View(content, patches, end, note=_length_note(start, claimed, end))


def _caf(content: Content) -> View | None:
    chunks = Chunks(">q", 1)
    found = chunks.find(content, 8, b"data")
    if found is None or found[1] < found[0] or found[1] + WRONG_SIZE_BYTES >= content.num_bytes:
        return None  # a size of -1 means until the end
    start, claimed = found[0] + 4, max(found[1], found[0] + 4)
    end = true_end(content, chunks, start, claimed)
    if end <= claimed + WRONG_SIZE_BYTES:
        return None
    size = {found[0] - 8: struct.pack(">q", end - found[0])}
    return View(content, size, end, note=_length_note(start, claimed, end))


def _au(content: Content) -> View | None:
    if len(content.head) < 12:
        return None
    start, size = struct.unpack(">II", content.head[4:12])
    if start + size + WRONG_SIZE_BYTES >= content.num_bytes:
        return None
    note = _length_note(start, start + size, content.num_bytes)
    return View(content, {8: b"\xff" * 4}, content.num_bytes, note=note)


def _flac(content: Content) -> View | None:
    """A FLAC of undeclared length, as encoders write it to a pipe: its last frame says how long it is."""
    head = content.head
    if len(head) < 42 or head[21] & 0x0F or any(head[22:26]):
        return None
    num_samples = _flac_samples(content)
    if num_samples is None:
        return None
    total = (head[21] << 32 | num_samples).to_bytes(5, "big")
    return View(content, {21: total}, content.num_bytes)


def _flac_samples(content: Content) -> int | None:
    """The number of samples up to the end of a FLAC's last frame, by that frame's header; None if none is found."""
    start = max(0, content.num_bytes - MAX_FLAC_FRAME_BYTES)
    tail = content.read(start, MAX_FLAC_FRAME_BYTES)
    block = int.from_bytes(content.head[10:12], "big")  # the largest, and the size of all but the last
    at = len(tail)
    while (at := tail.rfind(b"\xff", 0, at)) >= 0:
        header = tail[at : at + 16]
        if len(header) < 8 or header[1] & 0xFE != 0xF8 or header[3] & 1:
            continue
        length = max(1, 8 - (header[4] ^ 0xFF).bit_length()) if header[4] & 0x80 else 1
        number = header[4] & (0xFF >> (length + 1) if length > 1 else 0x7F)
        for byte in header[5 : 4 + length]:
            number = number << 6 | byte & 0x3F
        code, end = header[2] >> 4, 4 + length
        extra = {6: 1, 7: 2}.get(code, 0)
        told = int.from_bytes(header[end : end + extra], "big") + 1
        end += extra + {12: 1, 13: 2, 14: 2}.get(header[2] & 0x0F, 0)
        if len(header) <= end or _crc8(header[:end]) != header[end]:
            continue
        sizes = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}
        num_samples = told if extra else sizes.get(code, 0)
        first = number if header[1] & 1 else number * block  # counted in samples if blocks differ in size
        return first + num_samples if num_samples else None
    return None


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _mpeg(content: Content) -> View | None:
    """An MPEG stream that does not say how long it is, or says less than it is: decoded until nothing is left.

    libsndfile takes the length from the header of Xing in the first frame, and estimates it from the first frame's
    bit rate if there is none. A view that claims to be far larger makes the estimate long enough for all that is there.
    """
    start = content.after_id3()
    first = content.read(start, 192)
    end = content.num_bytes - 128 * (content.read(content.num_bytes - 128, 3) == b"TAG")
    at = max(first.find(b"Xing"), first.find(b"Info"))
    patches, note = {}, None
    if at >= 0 and len(first) >= at + XING_BYTES and first[at + 7] & 1:
        claimed = start + int.from_bytes(first[at + 12 : at + 16], "big") if first[at + 7] & 2 else end
        follows = content.read(claimed, 4)
        is_sound = starts_mpeg(follows) or follows[:3] == b"ID3"
        if claimed + (WRONG_SIZE_BYTES if is_sound else XING_TOLERANCE_BYTES) >= end:
            return None
        if content.read(claimed, 8) == b"APETAGEX":
            return None
        patches[start + at] = bytes(4)
        note = _length_note(start, claimed, end)
    return View(content, patches, end, content.num_bytes * MPEG_FRAMES_AT_MOST, note)
