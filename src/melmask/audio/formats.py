"""Which formats there are, by names and by content: those of libsndfile, and those for which there is PyAV."""

import os
import struct
from dataclasses import dataclass
from functools import cached_property

# Folders are searched for these; a manifest may list files of any name. The first are decoded by libsndfile.
_SNDFILE = ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .au .snd .caf .rf64 .w64 .sph .mp2"
_PYAV = ".m4a .m4b .mp4 .mov .aac .webm .weba .mka .mkv .wma .asf .ac3 .amr .3gp .ape .wv .tta .avi"
AUDIO_EXTENSIONS = frozenset(f"{_SNDFILE} {_PYAV}".split())

HEAD_BYTES = 4096
# Of WAV files, whose formats have numbers.
WAV_CODECS = {
    0x0092: "AC-3", 0x00FF: "AAC", 0x0160: "WMA 1", 0x0161: "WMA 2",
    0x0162: "WMA Pro", 0x0163: "WMA lossless", 0x0270: "ATRAC3", 0x1600: "AAC", 0x1610: "AAC", 0x2000: "AC-3",
    0x2001: "DTS", 0x674F: "Vorbis", 0x6750: "Vorbis", 0x6751: "Vorbis", 0x706D: "AAC", 0xF1AC: "FLAC",
}  # fmt: skip
SNDFILE_WAV_CODECS = frozenset((1, 2, 3, 6, 7, 0x11, 0x14, 0x31, 0x38, 0x40, 0x50, 0x55))
EXTENSIBLE = 0xFFFE
OGG_CODECS = {
    b"\x7fFLAC": "FLAC in Ogg", b"fLaC": "FLAC in Ogg", b"Speex   ": "Speex", b"\x80theora": "Ogg video",
    b"fishead\0": "Ogg with several streams", b"BBCD\0": "Ogg video", b"OVP80": "Ogg video",
}  # fmt: skip
FOREIGN = {
    b"\x1aE\xdf\xa3": "Matroska or WebM", b"0&\xb2u\x8ef\xcf\x11": "WMA (ASF)", b"#!AMR": "AMR", b"wvpk": "WavPack",
    b"TTA1": "True Audio", b"MAC ": "Monkey's Audio", b"\x0bw": "AC-3", b"\x7f\xfe\x80\x01": "DTS", b"FLV\x01": "FLV",
    b"DSD ": "DSD", b"FRM8": "DSD", b"MPCK": "Musepack", b"MP+": "Musepack", b"ADIF": "AAC",
    b"\0\0\1\xba": "MPEG video",
}  # fmt: skip


@dataclass(frozen=True)
class Content:
    """The bytes of an opened file, read without moving its position.

    Args:
        fd: its descriptor.
        num_bytes: its size.
        start: where it starts; not at 0 in an archive.
    """

    fd: int
    num_bytes: int
    start: int = 0

    @cached_property
    def head(self) -> bytes:
        """Its first bytes."""
        return _read_at(self.fd, min(HEAD_BYTES, self.num_bytes), self.start)

    def read(self, offset: int, num_bytes: int) -> bytes:
        """So many bytes from there on, fewer at its end."""
        if offset + num_bytes <= len(self.head):
            return self.head[offset : offset + num_bytes]
        return _read_at(self.fd, min(num_bytes, max(0, self.num_bytes - offset)), self.start + offset)

    def after_id3(self) -> int:
        """Where the sound starts: behind the ID3v2 tags that precede an MP3 or AAC stream."""
        offset, tag = 0, self.head[:10]
        while tag[:3] == b"ID3" and len(tag) == 10:
            size = sum((byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
            offset += 10 + size + 10 * bool(tag[5] & 0x10)
            tag = self.read(offset, 10)
        return offset


def _read_at(fd: int, num_bytes: int, start: int) -> bytes:
    """So many bytes of an open file, whose position stays."""
    if hasattr(os, "pread"):
        return os.pread(fd, num_bytes, start)
    position = os.lseek(fd, 0, os.SEEK_CUR)  # on Windows
    try:
        os.lseek(fd, start, os.SEEK_SET)
        return os.read(fd, num_bytes)
    finally:
        os.lseek(fd, position, os.SEEK_SET)


def is_mpeg(content: Content) -> bool:
    """Whether it is an MPEG audio stream of layer I to III, such as MP3, behind any tags."""
    if content.head[:3] != b"ID3" and content.head[:1] != b"\xff":
        return False
    return starts_mpeg(content.read(content.after_id3(), 4))


def starts_mpeg(header: bytes) -> bool:
    """Whether these four bytes are the header of a frame of MPEG audio, of layer I to III."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, rate = header[1] >> 3 & 3, header[1] >> 1 & 3, header[2] >> 4, header[2] >> 2 & 3
    return version != 1 and layer != 0 and bit_rate != 15 and rate != 3


def foreign_codec(content: Content) -> str | None:
    """The name of what libsndfile cannot decode, as told by the content; None for all else, known or not."""
    head = content.head
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return _wav_codec(head)
    if head[:4] == b"OggS":
        first = 27 + head[26] if len(head) > 26 else 0  # behind the header of the first page
        return next((name for mark, name in OGG_CODECS.items() if head[first:].startswith(mark)), None)
    if head[:4] in (b"fLaC", b"FORM"):
        return None
    for start, name in FOREIGN.items():
        if head.startswith(start):
            return name
    if head[4:8] in (b"ftyp", b"moov", b"mdat"):
        return "AAC or another codec in MP4"
    if head[:4] == b"caff" and head[28:32] == b"aac ":
        return "AAC in CAF"
    if head[:3] == b"ID3" or head[:1] == b"\xff":
        sync = content.read(content.after_id3(), 2)
        if len(sync) == 2 and sync[0] == 0xFF and sync[1] & 0xF6 == 0xF0:  # the layer is 0: an ADTS header
            return "AAC"
    return None


def _wav_codec(head: bytes) -> str | None:
    if head[8:12] == b"AVI ":
        return "AVI"
    start = head.find(b"fmt ") + 8
    order = ">" if head[:4] == b"RIFX" else "<"
    if head[8:12] != b"WAVE" or start < 8 or len(head) < start + 26:
        return None
    (tag,) = struct.unpack_from(f"{order}H", head, start)
    if tag == EXTENSIBLE:
        (tag,) = struct.unpack_from(f"{order}H", head, start + 24)
    return None if tag in SNDFILE_WAV_CODECS else f"{WAV_CODECS.get(tag, f'format 0x{tag:04X}')} in WAV"
