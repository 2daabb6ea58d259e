"""Tables of events, the way to time steps and back, and scores against values worked out by hand."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melmask.data.prepare import prepare
from melmask.data.store import Store
from melmask.detect.decoding import Decoder, best_threshold, choose_decoder, smooth
from melmask.detect.events import Event, activity, make_event_task, merge, read_events, write_events
from melmask.detect.scoring import onset_counts, segment_counts
from melmask.evaluation.splits import splits_of

HEADER = "path,onset_s,offset_s,label,fold,group\n"


def _table(tmp_path: Path, *lines: str, header: str = HEADER) -> Path:
    (tmp_path / "events.csv").write_text(header + "\n".join(lines) + "\n")
    return tmp_path / "events.csv"


def test_a_table_is_read_by_recording(tmp_path):
    table = _table(tmp_path, "b.wav,2.5,3,dog,1,x", "a.wav,,,,2,", "b.wav,0.5,1,cat,1,x", "b.wav,0.2,9,dog,1,x")
    clips, events = read_events(table)
    assert [(clip.path.name, clip.label, clip.fold, clip.group) for clip in clips] == [
        ("b.wav", "cat;dog", "1", "x"),
        ("a.wav", None, "2", None),
    ]
    assert events == [(Event(0.2, 9.0, "dog"), Event(0.5, 1.0, "cat"), Event(2.5, 3.0, "dog")), ()]


def test_what_is_written_is_read_again(tmp_path):
    events = {tmp_path / "b, c.wav": [Event(1.25, 2.0, "dog"), Event(0.0, 0.5, 'a "cat"')], tmp_path / "a.wav": []}
    write_events(tmp_path / "new" / "found.csv", events)
    clips, found = read_events(tmp_path / "new" / "found.csv")
    assert {clip.path: list(of_clip) for clip, of_clip in zip(clips, found, strict=True)} == {
        path: sorted(of_path) for path, of_path in events.items()
    }


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.wav,1,x,dog,1,"], "line 2: onset_s '1' and offset_s 'x' are not both numbers"),
        (["a.wav,1,,dog,1,"], "line 2: .*not both numbers.*leave them and the label empty"),
        (["a.wav,1,2,,1,"], "line 2: the label ''"),
        (["a.wav,1,2,dog;cat,1,"], "line 2: the label 'dog;cat': give each event one label"),
        (["a.wav,1,2,dog,1,", "a.wav,2,2,dog,1,"], "line 3: an event from 2 s to 2 s: need 0 <= onset_s < offset_s"),
        (["a.wav,-1,2,dog,1,"], "an event from -1 s"),
        (["a.wav,1,nan,dog,1,"], "to nan s"),
        (["a.wav,1,inf,dog,1,"], "to inf s"),
        (["a.wav,1,2,dog,1,", "b.wav,1,2,dog,2,", "a.wav,3,4,dog,2,"], "line 4: .*a.wav has fold 2 .* but 1 and"),
    ],
)
def test_faults_are_named_by_line(tmp_path, lines, message):
    with pytest.raises(ValueError, match=message):
        read_events(_table(tmp_path, *lines))


def test_a_table_without_times_is_refused(tmp_path):
    message = "line 1: no column 'offset_s' .found: path, onset_s, label.: the header is path,onset_s,offset_s,label"
    with pytest.raises(ValueError, match=message):
        read_events(_table(tmp_path, "a.wav,1,dog", header="path,onset_s,label\n"))


def test_every_event_has_a_time_step_however_short():
    centres_s = np.arange(10) * 0.16 + 0.075
    events = [Event(0.30, 0.31, "a"), Event(0.5, 0.9, "b"), Event(0.95, 1.2, "b"), Event(0.0, 9.0, "other")]
    active = activity(events, ["a", "b"], centres_s, 0.16)
    assert np.flatnonzero(active[:, 0]).tolist() == [1]  # steps are -0.005 to 0.155, 0.155 to 0.315, ...
    assert np.flatnonzero(active[:, 1]).tolist() == [3, 4, 5, 6, 7]  # 0.475 to 0.955: all above half; 0.955 to 1.275
    assert activity([], ["a"], centres_s, 0.16).any() is np.False_


def test_events_survive_the_way_through_time_steps():
    rng, centres_s = np.random.default_rng(0), np.arange(100) * 0.1 + 0.05
    for _ in range(20):
        edges = np.sort(rng.choice(100, 8, replace=False)) * 0.1
        events = tuple(Event(first, last, "a") for first, last in edges.reshape(4, 2))
        found = merge(activity(events, ["a"], centres_s, 0.1), ["a"], centres_s, 0.1)
        times = [(event.onset_s, event.offset_s) for event in found]
        assert np.allclose(times, [(event.onset_s, event.offset_s) for event in events])


def test_gaps_are_closed_up_to_their_limit_and_events_end_in_the_recording():
    centres_s, active = np.arange(10) * 0.16 + 0.075, np.zeros((10, 1), bool)
    active[[0, 2, 5, 9]] = True

    def times(max_gap_s: float) -> list[tuple[float, float]]:
        found = merge(active, ["a"], centres_s, 0.16, max_gap_s=max_gap_s, duration_s=1.5)
        return [(round(event.onset_s, 3), round(event.offset_s, 3)) for event in found]

    assert times(0.1) == [(0.0, 0.155), (0.315, 0.475), (0.795, 0.955), (1.435, 1.5)]
    assert times(0.16) == [(0.0, 0.475), (0.795, 0.955), (1.435, 1.5)]
    assert times(0.32) == [(0.0, 0.955), (1.435, 1.5)]
    assert merge(np.zeros((10, 1), bool), ["a"], centres_s, 0.16) == ()


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, truth = rng.integers(0, 6, 12) / 6, rng.random(12) < 0.4
        if not truth.any():
            continue
        found, threshold = best_threshold(scores, truth)

        def f_score(at: float, scores=scores, truth=truth) -> float:
            return 2 * (truth & (scores > at)).sum() / (truth.sum() + (scores > at).sum())

        assert found == pytest.approx(f_score(threshold))
        assert found == pytest.approx(max(f_score(at) for at in np.arange(-1, 12) / 12))


def test_medians_of_probabilities_are_medians_of_decisions():
    scores = np.random.default_rng(0).random(40)
    for window in (1, 3, 5):
        padded = np.pad(scores > 0.4, window // 2, mode="edge")
        votes = np.convolve(padded, np.ones(window), mode="valid") > window / 2
        assert np.array_equal(smooth(scores, window) > 0.4, votes)


def test_the_decoder_is_chosen_by_class():
    """Class a flickers around long events, which a median mends; class b is of single steps, which one would delete."""
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 3), bool)
    truth[:, 0] = np.arange(400) // 40 % 2 == 1
    truth[::7, 1] = True
    scores = np.where(truth, 0.3, 0.1) + 0.02 * rng.random((400, 3))
    flickers = rng.random(400) < 0.1
    scores[flickers, 0] = 0.4 - scores[flickers, 0]
    halves = [slice(0, 150), slice(150, 400)]
    decoder = choose_decoder([scores[half] for half in halves], [truth[half] for half in halves], 0.1)
    assert decoder.windows[0] > 1 and decoder.windows[1:] == (1, 1)
    assert 0.12 < decoder.thresholds[1] < 0.3 and decoder.thresholds[2] == 0.5  # class c is never active
    assert np.array_equal(decoder(scores)[:, 1:], truth[:, 1:])
    assert (decoder(scores)[:, 0] == truth[:, 0]).mean() > 0.97
    assert not Decoder((float("inf"),), (1,))(np.ones((5, 1))).any()


REFERENCE = [
    [Event(0.5, 1.2, "dog"), Event(2.0, 2.5, "none"), Event(4.1, 4.3, "dog")],
    [Event(0.1, 0.4, "none")],
    [],
]
DETECTED = [
    [Event(0.65, 1.4, "dog"), Event(2.3, 2.5, "none"), Event(3.6, 4.4, "none"), Event(0.5, 0.7, "dog")],
    [Event(0.2, 2.9, "dog")],
    [],
]


def test_segments_are_counted_as_by_hand():
    """First file: dog in 0, 1, 4 and detected in 0, 1; none in 2 and in 2, 3, 4. Second: none in 0; dog in 0 to 2."""
    counts = segment_counts(REFERENCE, DETECTED, [5.0, 2.5, 3.0], ["dog", "none"])
    assert counts.correct.tolist() == [[2, 1], [0, 0], [0, 0]]
    assert counts.reference.tolist() == [[3, 1], [0, 1], [0, 0]]
    assert counts.detected.tolist() == [[2, 3], [3, 0], [0, 0]]
    assert counts.f_score()[:, 0] == pytest.approx([2 * 3 / (5 + 8), 2 * 2 / (3 + 5), 2 * 1 / (2 + 3)])


def test_onsets_are_counted_as_by_hand():
    """Both first dogs begin within 200 ms of the reference's, which only one of them may claim; no other onset does."""
    counts = onset_counts(REFERENCE, DETECTED, ["dog", "none"])
    assert counts.correct.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert counts.reference.tolist() == [[2, 1], [0, 1], [0, 0]]
    assert counts.detected.tolist() == [[2, 2], [1, 0], [0, 0]]
    assert counts.f_score()[:, 0] == pytest.approx([2 * 1 / (4 + 5), 2 * 1 / (2 + 3), 0])


def test_scores_are_those_of_sed_eval_on_all_files():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import sed_eval
    rng, classes, duration_s = np.random.default_rng(0), ["a", "b", "c"], [10.0, 7.3, 3.0, 12.0]

    def draw(limit_s: float) -> list[Event]:
        onsets = rng.uniform(0, limit_s - 1, rng.integers(0, 9))
        return [Event(float(at), float(at + rng.uniform(0.1, 1)), str(rng.choice(classes[:2]))) for at in onsets]

    reference = [draw(limit) for limit in duration_s]
    detected = [
        [Event(max(0.0, e.onset_s + rng.normal(0, 0.2)), e.offset_s + 0.3, e.label) for e in events] + draw(limit)
        for events, limit in zip(reference, duration_s, strict=True)
    ]
    segments = sed_eval.sound_event.SegmentBasedMetrics(classes, time_resolution=1.0)
    onsets = sed_eval.sound_event.EventBasedMetrics(classes, t_collar=0.2, evaluate_offset=False)
    for wanted, found, limit in zip(reference, detected, duration_s, strict=True):
        lists = [
            [{"event_onset": e.onset_s, "event_offset": e.offset_s, "event_label": e.label} for e in events]
            for events in (wanted, found)
        ]
        segments.evaluate(*lists, evaluated_length_seconds=limit)
        onsets.evaluate(*lists)
    for metric, counts in (
        (segments, segment_counts(reference, detected, duration_s, classes)),
        (onsets, onset_counts(reference, detected, classes)),
    ):
        by_class = metric.results_class_wise_metrics()
        expected = [metric.results_overall_metrics(), *(by_class[label] for label in classes)]
        f_scores = [result["f_measure"]["f_measure"] for result in expected]
        assert 0.2 < f_scores[0] < 0.95 and np.isnan(f_scores[3])  # class c is nowhere
        assert counts.f_score()[:, 0] == pytest.approx(f_scores, nan_ok=True)


def test_weighted_files_count_as_often_as_they_weigh():
    counts = onset_counts(REFERENCE, DETECTED, ["dog", "none"])
    twice = onset_counts([REFERENCE[0]] * 2 + [REFERENCE[1]], [DETECTED[0]] * 2 + [DETECTED[1]], ["dog", "none"])
    assert counts.f_score(np.array([[2.0], [1.0], [0.0]]))[:, 0] == pytest.approx(twice.f_score()[:, 0])
    assert np.isnan(counts.f_score(np.array([[0.0], [0.0], [1.0]]))).all()


def _store(folder: Path, table: Path, num: int = 4, length_s: float = 2.0) -> Store:
    rng = np.random.default_rng(0)
    for i in range(num):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(int(16_000 * length_s)), 16_000)
    return prepare([table], folder / "store", num_workers=0)


@pytest.mark.parametrize("end", [2.0, 2.005])
def test_an_event_may_end_with_its_recording(tmp_path, end):
    table = _table(tmp_path, *(f"{i}.wav,0.5,{end},dog,{i % 2}," for i in range(4)))
    assert len(make_event_task(table, _store(tmp_path, table)).events) == 4


@pytest.mark.parametrize(("onset", "end"), [(0.5, 2.1), (1.9, 1000), (3, 4)])
def test_an_event_that_ends_after_its_recording_is_an_error(tmp_path, onset, end):
    lines = [f"{i}.wav,0.5,1,dog,{i % 2}," for i in range(4)]
    table = _table(tmp_path, *lines, f"1.wav,{onset},{end},cat,1,")
    message = rf"events.csv: the event 'cat' of .*1\.wav ends at {end} s, but the recording lasts 2\.00 s \(1 such"
    with pytest.raises(ValueError, match=message):
        make_event_task(table, _store(tmp_path, table))


def test_a_class_of_events_in_unusable_recordings_only_is_an_error(tmp_path):
    table = _table(tmp_path, *(f"{i}.wav,0.5,1,dog,{i % 2}," for i in range(4)), "gone.wav,0.5,1,cat,1,")
    with pytest.raises(ValueError, match="class 'cat' of task events has no clip that can be used"):
        make_event_task(table, _store(tmp_path, table))


def test_recordings_that_were_lost_are_counted_and_copies_refused(tmp_path):
    lines = [f"{i}.wav,0.5,1,dog,{i % 2}," for i in range(4)]
    table = _table(tmp_path, *lines, "gone.wav,0.5,1,dog,1,")
    task = make_event_task(table, _store(tmp_path, table)).task
    assert "1 of 5 test clips could not be used: dog 1; listed in" in splits_of(task)[0].notes[0]
    (tmp_path / "copy.wav").write_bytes((tmp_path / "0.wav").read_bytes())
    table = _table(tmp_path, *lines, "copy.wav,0.5,1,dog,1,")
    store = prepare([table], tmp_path / "store", num_workers=0)
    with pytest.raises(ValueError, match="are one recording"):
        splits_of(make_event_task(table, store).task)
    assert len(splits_of(make_event_task(table, store, allow_duplicates=True).task)) == 2
