"""Archives from a server on this machine: fetched, resumed, verified, and unpacked only into their folder."""

import hashlib
import io
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from melmask.data import download as module
from melmask.data.download import Archive, download, fetch, unpack

CONTENT = bytes(range(256)) * 40


class Server:
    """What is served and how, and the requests."""

    def __init__(self) -> None:
        self.content, self.etag = CONTENT, '"v1"'
        self.breaks_after: int | None = None  # bytes of an answer, after which the connection ends
        self.knows_ranges, self.says_length = True, True
        self.asked: list[dict[str, str | None]] = []

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append({name: handler.headers.get(name) for name in ("Range", "If-Range")})
        if handler.path != "/set.zip":
            return handler.send_error(404)
        start = int((self.asked[-1]["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        if not self.knows_ranges or self.asked[-1]["If-Range"] not in (None, self.etag):
            start = 0
        if start and start >= len(self.content):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(self.content)}")
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        handler.send_response(206 if start else 200)
        body = self.content[start:]
        if self.says_length:
            handler.send_header("Content-Length", str(len(body)))
        else:
            handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", self.etag)
        handler.end_headers()
        sent = body if self.breaks_after is None else body[: self.breaks_after]
        if not self.says_length:
            sent = b"%x\r\n%b\r\n" % (len(sent), sent) + (b"0\r\n\r\n" if self.breaks_after is None else b"")
        handler.wfile.write(sent)
        return None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_BYTES", 1000)
    behaviour = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            behaviour.answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        behaviour.url = f"http://127.0.0.1:{http.server_port}/set.zip"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield behaviour
        http.shutdown()
        thread.join()


def digest_of(content: bytes, kind: Callable = hashlib.sha256) -> str:
    return kind(content).hexdigest()


@pytest.mark.parametrize("checksum", ["", digest_of(CONTENT), digest_of(CONTENT, hashlib.md5)])
def test_fetches_with_progress_and_only_once(server, tmp_path, checksum):
    seen: list[tuple[str, int, int]] = []
    archive = Archive(server.url, checksum)
    path = fetch(archive, tmp_path / "new", lambda *step: seen.append(step))
    assert path == tmp_path / "new/set.zip" and path.read_bytes() == CONTENT
    fetched = [step for step in seen if step[0] == "fetching set.zip"]
    assert fetched[0] == ("fetching set.zip", 0, len(CONTENT)) and fetched[-1][1:] == (len(CONTENT), len(CONTENT))
    assert [step[1] for step in fetched] == sorted(step[1] for step in fetched) and len(fetched) > 10
    assert any(step[0] == "checking set.zip" for step in seen) == bool(checksum)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set.zip"]
    fetch(archive, tmp_path / "new")
    assert len(server.asked) == 1  # and not again


def test_a_connection_that_ends_early_is_resumed(server, tmp_path):
    archive = Archive(server.url, digest_of(CONTENT))
    server.breaks_after = 3_000
    with pytest.raises(OSError, match=r"ended after 3,000 of 10,240 bytes: run the same command to resume"):
        fetch(archive, tmp_path)
    assert not (tmp_path / "set.zip").exists()
    server.breaks_after = None
    assert fetch(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked[1] == {"Range": "bytes=3000-", "If-Range": '"v1"'}
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"]


def test_a_server_that_does_not_send_the_length(server, tmp_path):
    archive, server.says_length, server.breaks_after = Archive(server.url), False, 3_000
    with pytest.raises(OSError, match=r"the connection ended after 3,000 bytes .*: run the same command to resume"):
        fetch(archive, tmp_path)
    seen: list[tuple[str, int, int]] = []
    server.breaks_after = None
    assert fetch(archive, tmp_path, lambda *step: seen.append(step)).read_bytes() == CONTENT
    assert seen[0] == ("fetching set.zip", 3_000, 0) and seen[-1] == ("fetching set.zip", len(CONTENT), 0)


def test_a_part_of_another_version_is_discarded(server, tmp_path):
    archive = Archive(server.url)
    server.breaks_after = 3_000
    with pytest.raises(OSError, match="ended after"):
        fetch(archive, tmp_path)
    server.breaks_after, server.content, server.etag = None, CONTENT[::-1], '"v2"'
    assert fetch(archive, tmp_path).read_bytes() == CONTENT[::-1]


def test_a_part_without_etag_and_checksum_is_discarded(server, tmp_path):
    (tmp_path / "set.zip.part").write_bytes(b"x" * 100)  # neither ETag nor checksum would show a change
    assert fetch(Archive(server.url), tmp_path).read_bytes() == CONTENT
    assert server.asked[0]["Range"] is None


def test_a_server_without_ranges_sends_the_whole_again(server, tmp_path):
    server.knows_ranges = False
    (tmp_path / "set.zip.part").write_bytes(b"x" * 100)
    assert fetch(Archive(server.url, digest_of(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert server.asked[0]["Range"] == "bytes=100-"


@pytest.mark.parametrize(("part", "num_asked"), [(CONTENT, 1), (CONTENT + b"more", 2)])
def test_a_part_that_is_whole_or_too_long(server, tmp_path, part, num_asked):
    (tmp_path / "set.zip.part").write_bytes(part)
    assert fetch(Archive(server.url, digest_of(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == num_asked


def test_a_wrong_checksum_deletes_what_was_fetched(server, tmp_path):
    with pytest.raises(ValueError, match=f"sha256 is {digest_of(CONTENT)}, not {'0' * 64} as published"):
        fetch(Archive(server.url, "0" * 64), tmp_path)
    assert not (tmp_path / "set.zip").exists() and not (tmp_path / "set.zip.part").exists()
    with pytest.raises(ValueError, match="md5 is"):
        fetch(Archive(server.url, "0" * 32), tmp_path)


def test_an_existing_file_is_verified_and_kept(server, tmp_path):
    (tmp_path / "set.zip").write_bytes(CONTENT)
    assert fetch(Archive(server.url, digest_of(CONTENT)), tmp_path).read_bytes() == CONTENT
    with pytest.raises(ValueError, match=r"set\.zip: its sha256 is .* as published: delete it"):
        fetch(Archive(server.url, "0" * 64), tmp_path)
    assert (tmp_path / "set.zip").exists() and not server.asked


def test_a_server_that_refuses_or_cannot_be_reached_is_named(server, tmp_path):
    missing = server.url.replace("set", "none")
    with pytest.raises(OSError, match=r"/none\.zip: the server answers 404 Not Found"):
        fetch(Archive(missing), tmp_path)
    with pytest.raises(OSError, match=r"http://127\.0\.0\.1:9/set\.zip cannot be reached"):
        fetch(Archive("http://127.0.0.1:9/set.zip"), tmp_path)


def test_downloads_and_unpacks_once_even_if_the_archive_is_deleted(server, tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("Set/audio/1.wav", "one")
    server.content = buffer.getvalue()
    download([Archive(server.url)], tmp_path / "sets")
    assert (tmp_path / "sets/Set/audio/1.wav").read_text() == "one"
    (tmp_path / "sets/set.zip").unlink()
    download([Archive(server.url)], tmp_path / "sets")
    assert len(server.asked) == 1


def zipped(path: Path, *members: tuple[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members:
            archive.writestr(name, text)
    return path


def tarred(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member in members:
            content = b"content" if member.isreg() else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("name", ["set.tar", "set.tar.gz"])
def test_unpacks_tar(tmp_path, name):
    path = tarred(tmp_path / name, member("./", tarfile.DIRTYPE), member("./yes/1.wav"), member("Straße/2.wav"))
    seen: list[tuple[str, int, int]] = []
    unpack(path, tmp_path / "out", lambda *step: seen.append(step))
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.wav"))
    assert files == ["Straße/2.wav", "yes/1.wav"] and (tmp_path / "out/yes/1.wav").read_bytes() == b"content"
    assert seen[-1] == (f"unpacking {name}", 3, 0)


def test_unpacks_zip_with_folders(tmp_path):
    unpack(zipped(tmp_path / "a.zip", ("Set/", ""), ("Set/1.wav", "one"), ("Set/1..2.wav", "dots")), tmp_path / "out")
    assert (tmp_path / "out/Set/1.wav").read_text() == "one" and (tmp_path / "out/Set/1..2.wav").exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "has an absolute path"),
        ("C:/Windows/x", "has an absolute path"),
        ("\\\\server\\share\\x", "has an absolute path"),
        ("../outside.txt", r"has \.\. in its path"),
        ("Set/../../outside.txt", r"has \.\. in its path"),
        ("Set\\..\\..\\outside.txt", r"has \.\. in its path"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_hostile_names_are_refused(tmp_path, name, why, kind):
    inner = tmp_path / "inner"
    path = tmp_path / f"hostile.{kind}"
    if kind == "zip":
        zipped(path, (name, "evil"))
    else:
        tarred(path, member(name))
    with pytest.raises(ValueError, match=rf"hostile\.{kind}: its member .* {why}: not unpacked"):
        unpack(path, inner)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [f"hostile.{kind}"]


@pytest.mark.parametrize(
    "hostile",
    [
        member("link", tarfile.SYMTYPE, "../../outside"),
        member("link", tarfile.SYMTYPE, "/etc"),
        member("link", tarfile.LNKTYPE, "../outside"),
        member("tty", tarfile.CHRTYPE),
        member("disk", tarfile.BLKTYPE),
        member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name}-{info.type.decode()}-{info.linkname}",
)
def test_links_devices_and_pipes_are_refused(tmp_path, hostile):
    path = tarred(tmp_path / "hostile.tar", member("good.wav"), hostile, member("link/evil.txt"))
    with pytest.raises(ValueError, match="is a link, device or pipe"):
        unpack(path, tmp_path / "inner")
    assert [p.name for p in (tmp_path / "inner").iterdir()] == ["good.wav"]


def test_a_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ValueError, match="is a link, device or pipe"):
        unpack(tmp_path / "hostile.zip", tmp_path / "inner")
    assert not list((tmp_path / "inner").glob("*"))


@pytest.mark.parametrize("name", ["out/evil.txt", "file.txt"])
def test_an_existing_link_is_not_followed_out_of_the_folder(tmp_path, name):
    inner, outside = tmp_path / "inner", tmp_path / "outside"
    inner.mkdir()
    outside.mkdir()
    (outside / "file.txt").write_text("mine")
    (inner / "out").symlink_to(outside)
    (inner / "file.txt").symlink_to(outside / "file.txt")
    with pytest.raises(ValueError, match="leads out of the folder"):
        unpack(zipped(tmp_path / "a.zip", (name, "evil")), inner)
    assert [p.name for p in outside.iterdir()] == ["file.txt"] and (outside / "file.txt").read_text() == "mine"


@pytest.mark.parametrize("damage", ["no archive", "cut tar", "cut zip", "wrong byte"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    path = tmp_path / "damaged"
    if damage == "cut tar":
        path = tarred(tmp_path / "damaged.tar.gz", *(member(f"{number}.wav") for number in range(50)))
        path.write_bytes(path.read_bytes()[:-60])
    elif damage == "no archive":
        path.write_text("<html>not found</html>")
    else:
        zipped(path, ("1.wav", "one" * 100))
        content = path.read_bytes()
        path.write_bytes(content[:-10] if damage == "cut zip" else content.replace(b"oneone", b"onetwo", 1))
    with pytest.raises(ValueError, match=r"damaged.* is damaged, or neither zip nor tar"):
        unpack(path, tmp_path / "out")
