"""A name is an entry of a registry or package.module:Class; every other one is refused with what helps."""

import subprocess
import sys

import pytest

from melmask.registry import lookup

TOY = "class Toy:\n    number = 7\n"


def test_a_registered_name_comes_before_any_import():
    assert lookup("toy:Toy", {"toy:Toy": 1}, "number") == 1


def test_a_class_from_outside_is_imported_from_the_path(tmp_path, monkeypatch):
    (tmp_path / "package_on_path").mkdir()
    (tmp_path / "package_on_path" / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    assert lookup("package_on_path.toy:Toy", {"none": type}, "toy").number == 7


def test_a_console_script_finds_a_module_in_the_current_folder(tmp_path):
    """A console script has its own folder first on sys.path, not the current one: -P leaves that out alike."""
    (tmp_path / "toy_here.py").write_text(TOY)
    (tmp_path / "json.py").write_text("raise SystemExit('shadows the standard library')\n")
    code = "from melmask.registry import lookup; import json; print(lookup('toy_here:Toy', {}, 'toy').number)"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "7\n", done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three", "no number 'three'; there are: one, two; name one of your own as package.module:Class"),
        ("a b:C", "no number 'a b:C'; there are"),
        ("toy_of_errors:", "no number 'toy_of_errors:'; there are"),
        (":Toy", "no number ':Toy'; there are"),
        ("nowhere_to_be_found:Toy", "No module named 'nowhere_to_be_found'; run from the folder .* PYTHONPATH"),
        ("toy_of_errors.deeper:Toy", "No module named 'toy_of_errors.deeper'.* PYTHONPATH"),
        ("toy_of_errors:Missing", "toy_of_errors.py defines no Missing"),
        ("needs_another:Toy", "No module named 'not_installed'; what needs_another imports must be installed"),
    ],
)
def test_what_a_name_lacks_is_said(tmp_path, monkeypatch, name, message):
    (tmp_path / "toy_of_errors.py").write_text(TOY)
    (tmp_path / "needs_another.py").write_text("import not_installed\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=message):
        lookup(name, {"one": 1, "two": 2}, "number")
