"""The command demo: an option of what is not asked for is an error, and so is a corpus that is too small."""

from pathlib import Path

import pytest

from melmask.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["procedural", "--clips-per-task", "60"], "clips per task are of the corpus only"),
        (["--hours", "1"], "hours are of procedural sound only"),
        (["--clips-per-task", "0"], "each label needs a clip in each fold, got 0 clips"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: list[str], message: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["demo", *arguments, "--out", str(tmp_path / "out")])
    assert exit_.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "out").exists()
