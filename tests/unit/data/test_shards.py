"""Keys of shards are the same in every version, so that existing stores are not made again."""

from pathlib import Path

from melmask.data.manifest import Clip, Rejected
from melmask.data.prepare import _digest, _plan_shards
from melmask.data.shards import Job, Recording
from melmask.logmel import LogMelSpec


def test_shards_are_divided_and_named_as_by_earlier_versions():
    recordings = [Recording(Path(f"/data/{i:03}.wav"), 1000 + i, 5 * 10**18 + i) for i in range(600)]
    shards = _plan_shards(recordings, Job(Path("shards"), LogMelSpec(), min_frames=16))
    assert [(shard.key, len(shard.recordings)) for shard in shards] == [
        ("c160e9228720dbf0e650", 176),
        ("0cb357c271fbd8343c23", 15),
        ("9505431be49d2358c7b0", 248),
        ("38121589353d34184b7c", 85),
        ("6f7c502795ead76e6a27", 76),
    ]
    assert [recording for shard in shards for recording in shard.recordings] == recordings


def test_listings_are_hashed_as_by_earlier_versions():
    clip = Clip(Path("/data/a.wav"), "dog", "1", None, "set")
    rejected = Rejected(Path("/data/b.wav"), "missing file", "gone", "set")
    digest = "6733dce9cd9692334121a282ae3b015b15214d6fc74b9c6d1e44a9f7cef4ce0b"
    assert _digest([repr(clip), repr(rejected)]) == digest


def test_the_files_of_a_shard_keep_their_names():
    job = Job(Path("shards"), LogMelSpec(), min_frames=16)
    [shard] = _plan_shards([Recording(Path("/data/a.wav"), 1, 1)], job)
    files = (job.log_mels(shard), job.description(shard), job.marker(shard))
    assert [path.name for path in files] == [f"{shard.key}{extension}" for extension in (".npy", ".json", ".now")]
