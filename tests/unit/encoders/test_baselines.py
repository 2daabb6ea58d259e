"""Log-mel statistics, against the same thing written out band by band."""

from itertools import pairwise

import numpy as np
import pytest

from melmask.encoders.baselines import logmel_statistics


@pytest.mark.parametrize("num_frames", [4, 7, 98])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_statistics_of_each_band(num_frames: int, dtype: type) -> None:
    log_mel = np.random.default_rng(0).normal(-7, 4, size=(num_frames, 3)).astype(dtype)
    result = logmel_statistics(log_mel)
    assert result.dtype == np.float32
    edges = [num_frames * quarter // 4 for quarter in range(5)]
    for band in range(3):
        values = [float(value) for value in log_mel[:, band]]
        change = [later - sooner for sooner, later in pairwise(values)]
        segments = [np.mean(values[a:b]) for a, b in pairwise(edges)]
        expected = [np.mean(values), np.std(values), np.std(change), *segments]
        assert result[band::3] == pytest.approx(expected, abs=1e-4)


def test_clips_of_few_frames() -> None:
    one = logmel_statistics(np.array([[1.0, 2.0]]))
    assert one.tolist() == [1, 2, 0, 0, 0, 0] + [1, 2] * 4
    two = logmel_statistics(np.array([[1.0], [3.0]]))
    assert two.tolist() == [2, 1, 0, 1, 1, 3, 3]
    three = logmel_statistics(np.array([[1.0], [3.0], [8.0]]))
    assert three[3:].tolist() == [1, 1, 3, 8]


def test_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="0 frames"):
        logmel_statistics(np.zeros((0, 80)))
