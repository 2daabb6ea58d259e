"""Download archives of public data sets: resumable, verified by checksum, and unpacked only inside one folder."""

import hashlib
import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Literal
from urllib.parse import unquote, urlsplit

from melmask.escaping import in_folder

DownloadProgress = Callable[[str, int, int], None]  # (what is being done, bytes or files done, total; 0 if unknown)

BLOCK_BYTES = 2**20
TIMEOUT_S = 60.0
MD5_DIGITS = 32


def show_nothing(what: str, done: int, total: int) -> None:
    """For callers who do not want to know the progress."""


@dataclass(frozen=True)
class Archive:
    """An archive that the data set's own documentation links to.

    Args:
        url: its address.
        checksum: its MD5 or SHA-256, in hexadecimal; "" if no stable one is published.
    """

    url: str
    checksum: str = ""

    @property
    def name(self) -> str:
        """The name of its file: the last part of the address."""
        return in_folder(unquote(urlsplit(self.url).path))


@dataclass(frozen=True)
class _Member:
    """A file or folder of an archive; ``kind`` is "other" for links, devices and pipes."""

    name: str
    kind: Literal["file", "folder", "other"]
    open: Callable[[], IO[bytes] | None]


def download(archives: Sequence[Archive], folder: Path, progress: DownloadProgress = show_nothing) -> None:
    """Fetch and unpack the archives that have not been unpacked yet. An unpacked archive may be deleted.

    Args:
        archives: what to fetch.
        folder: for the archives and their contents.
        progress: see `DownloadProgress`.

    Raises:
        OSError, ValueError: as `fetch` and `unpack`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        done = folder / f".{archive.name}.unpacked"
        if not done.exists():
            unpack(fetch(archive, folder, progress), folder, progress)
            done.touch()


def fetch(archive: Archive, folder: Path, progress: DownloadProgress = show_nothing) -> Path:
    """Fetch an archive into a folder, unless it is there; resumes the ``.part`` file of an earlier attempt.

    Returns:
        The archive's file.

    Raises:
        OSError: the server cannot be reached, refuses, or closed the connection early; the next call resumes.
        ValueError: the checksum differs. A file fetched by this call is deleted; one that was there before is kept.
    """
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if path.exists():
        if fault := _checksum_fault(archive, path, progress):
            raise ValueError(f"{path}: its {fault}: delete it to fetch it again, or move it elsewhere")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    total = _append(archive, part, progress)
    got = part.stat().st_size
    if total is not None and got < total:
        raise OSError(
            f"{archive.url}: the connection ended after {got:,} of {total:,} bytes: run the same command to resume"
        )
    if fault := _checksum_fault(archive, part, progress):
        part.unlink()
        raise ValueError(
            f"{archive.url}: its {fault}; the file is deleted: try again; if the checksum is the same, the archive has "
            "changed: fetch and check it by hand"
        )
    part.replace(path)
    _etag_path(part).unlink(missing_ok=True)
    return path


def unpack(path: Path, folder: Path, progress: DownloadProgress = show_nothing) -> None:
    """Unpack a zip or tar archive into a folder, and never write outside of it.

    Raises:
        ValueError: the archive is damaged or of another kind; or a member has an absolute path or ``..`` in its path,
            leads out of the folder, or is a link, device or pipe. Earlier members have then been unpacked.
    """
    root = folder.resolve()
    try:
        with _members(path) as (members, total):
            for number, member in enumerate(members, 1):
                _write(member, path, root)
                progress(f"unpacking {path.name}", number, total)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
        raise ValueError(
            f"{path} is damaged, or neither zip nor tar ({error}): delete it and fetch it again"
        ) from error


def _append(archive: Archive, part: Path, progress: DownloadProgress) -> int | None:
    """Fetch the rest of a partial file. Returns the size of the whole file, if the server sends it."""
    start = part.stat().st_size if part.exists() else 0
    etag = _etag_path(part)
    version = etag.read_text() if etag.exists() else ""
    if start and not (version or archive.checksum):
        start = 0  # without ETag and checksum, a file that has changed since would go unnoticed
    headers = {"User-Agent": "melmask"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(archive.url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _beyond_end(archive, part, start, error.headers.get("Content-Range", ""), progress)
        status = f"{error.code} {error.reason}"
        raise OSError(f"{archive.url}: the server answers {status}: try later, or fetch it by hand") from error
    except urllib.error.URLError as error:
        raise OSError(f"{archive.url} cannot be reached ({error.reason}): try later, or fetch it by hand") from error
    with response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:  # the whole file: no ranges supported, or it has changed
            start = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        etag.write_text(response.headers.get("ETag") or "")
        with part.open("ab" if start else "wb") as file:
            done = start
            progress(f"fetching {archive.name}", done, total or 0)
            try:
                while block := response.read(BLOCK_BYTES):
                    file.write(block)
                    done += len(block)
                    progress(f"fetching {archive.name}", done, total or 0)
            except (TimeoutError, ConnectionError, HTTPException) as error:
                if isinstance(error, IncompleteRead):
                    file.write(error.partial)
                    done += len(error.partial)
                so_far = f"the connection ended after {done:,} bytes ({error})"
                raise OSError(f"{archive.url}: {so_far}: run the same command to resume") from error
    return total


def _beyond_end(archive: Archive, part: Path, start: int, content_range: str, progress: DownloadProgress) -> int | None:
    """Handle a server that has nothing beyond ``start``: the part is complete, or belongs to another file."""
    if content_range.rpartition("/")[2] == str(start):
        return start
    part.unlink()
    return _append(archive, part, progress)


def _etag_path(part: Path) -> Path:
    """The file that holds the ETag of a partial download: the server's name for the version of the file."""
    return part.with_name(f"{part.name}.etag")


def _checksum_fault(archive: Archive, path: Path, progress: DownloadProgress) -> str:
    """How the file's checksum differs from the published one; "" if they agree or none is published."""
    if not archive.checksum:
        return ""
    digest = hashlib.md5() if len(archive.checksum) == MD5_DIGITS else hashlib.sha256()
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            progress(f"checking {archive.name}", done, total)
    found = digest.hexdigest()
    return "" if found == archive.checksum else f"{digest.name} is {found}, not {archive.checksum} as published"


@contextmanager
def _members(path: Path) -> Iterator[tuple[Iterator[_Member], int]]:
    """The members of an archive in order, and their number; 0 for tar, which would have to be read to the end."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            yield (_zip_member(archive, info) for info in infos), len(infos)
    else:
        with tarfile.open(path) as archive:
            yield (_tar_member(archive, info) for info in archive), 0


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    file_type = stat.S_IFMT(info.external_attr >> 16)  # 0 in archives not made on Unix
    is_plain = file_type in (0, stat.S_IFREG, stat.S_IFDIR)
    kind: Literal["file", "folder"] = "folder" if info.is_dir() else "file"
    return _Member(info.filename, kind if is_plain else "other", lambda: archive.open(info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    kind: Literal["file", "folder", "other"] = "folder" if info.isdir() else "file" if info.isreg() else "other"
    return _Member(info.name, kind, lambda: archive.extractfile(info))


def _write(member: _Member, path: Path, root: Path) -> None:
    """Write one member below ``root``, a path without links."""

    def refuse(why: str) -> ValueError:
        return ValueError(
            f"{path}: its member {member.name!r} {why}: not unpacked; fetch the archive from its original source"
        )

    posix, windows = PurePosixPath(member.name), PureWindowsPath(member.name)
    if posix.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        raise refuse("has an absolute path")
    if ".." in posix.parts or ".." in windows.parts:
        raise refuse("has .. in its path")
    if member.kind == "other":
        raise refuse("is a link, device or pipe")
    target = root / posix
    # A link that already is in the folder could redirect a harmless name out of it.
    if target.is_symlink() or not target.resolve().is_relative_to(root):
        raise refuse("leads out of the folder")
    if member.kind == "folder":
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.open()
    assert source is not None
    with source, target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK_BYTES)
