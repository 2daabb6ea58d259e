"""Keys of shards change with SHARD_VERSION alone, so that existing stores are made again only if they must be."""

from pathlib import Path

from melmask.data.manifest import Clip, Rejected
from melmask.data.prepare import _digest, _plan_shards
from melmask.data.shards import Job, Recording
from melmask.logmel import LogMelSpec


def test_shards_are_divided_as_by_earlier_versions_and_named_by_this_one():
    recordings = [Recording(Path(f"/data/{i:03}.wav"), 1000 + i, 5 * 10**18 + i) for i in range(600)]
    shards = _plan_shards(recordings, Job(Path("shards"), LogMelSpec()))
    assert [(shard.key, len(shard.recordings)) for shard in shards] == [
        ("07e6b854944d25b75d82", 176),
        ("0ca948d7ab843a5f6fae", 15),
        ("fbd02509528f53a8f55e", 248),
        ("c819d9e3975b7b67442b", 85),
        ("cdcfb11fcb54ee95218e", 76),
    ]
    assert [recording for shard in shards for recording in shard.recordings] == recordings


def test_listings_are_hashed_as_by_earlier_versions():
    clip = Clip(Path("/data/a.wav"), "dog", "1", None, "set")
    rejected = Rejected(Path("/data/b.wav"), "missing file", "gone", "set")
    digest = "6733dce9cd9692334121a282ae3b015b15214d6fc74b9c6d1e44a9f7cef4ce0b"
    assert _digest([repr(clip), repr(rejected)]) == digest


def test_the_files_of_a_shard_keep_their_names():
    job = Job(Path("shards"), LogMelSpec())
    [shard] = _plan_shards([Recording(Path("/data/a.wav"), 1, 1)], job)
    files = (job.log_mels(shard), job.description(shard), job.marker(shard))
    assert [path.name for path in files] == [f"{shard.key}{extension}" for extension in (".npy", ".json", ".now")]
