"""The rules of the house, read from the source: who imports whom, what is documented, and how long a file is."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import melmask

SOURCE = Path(melmask.__file__).parent
ROOT = Path(__file__).parents[2]
FILES = sorted(SOURCE.rglob("*.py"))
MAX_LINES = 400

# Each room and the rooms it may import from; none from itself upwards. A room is a module or folder of melmask.
GROUND = {"types", "extras", "pages", "fields", "files", "locks", "escaping", "runtime", "registry", "threads"}
FRONT = GROUND | {"audio", "patches", "logmel"}
NETWORKS = FRONT | {"nn"}
DATA = FRONT | {"data"}
LEARNING = NETWORKS | {"masking", "frameworks", "data"}
FEATURES = LEARNING | {"datasets", "demo", "train", "encoders"}
SCORES = FEATURES | {"probes", "evaluation"}
PICTURES = SCORES | {"study", "viz"}
MAY_IMPORT = {
    "types": set(),
    "extras": set(),
    "pages": set(),
    "fields": set(),
    "files": {"fields"},
    "locks": set(),
    "escaping": set(),
    "runtime": set(),
    "threads": set(),
    "registry": set(),
    "audio": GROUND,
    "patches": GROUND,
    "logmel": GROUND,
    "masking": FRONT,
    "nn": FRONT,
    "frameworks": NETWORKS,
    "data": FRONT,
    "datasets": DATA,
    "demo": DATA | {"datasets"},
    "train": LEARNING | {"demo"},
    "plan": LEARNING | {"train"},
    "encoders": FEATURES - {"encoders"},
    "collection": FEATURES,
    "probes": FEATURES,
    "evaluation": FEATURES | {"probes"},
    "adapters": FEATURES,
    "finetune": SCORES,
    "detect": SCORES,
    "callbacks": SCORES,
    "models": SCORES | {"finetune", "detect", "collection"},
    "study": SCORES | {"plan"},
    "health": SCORES | {"study", "collection", "finetune", "models"},
    "viz": SCORES | {"study"},
    "report": PICTURES,
    "cli": PICTURES | {"report", "demo", "plan", "collection", "finetune", "detect", "models", "callbacks", "health"},
    "__main__": {"cli"},
    "api": FEATURES,
    "__init__": SCORES | {"api", "finetune", "detect", "models"},
}
ONLY_IN = {
    "tyro": {"cli"},
    "rich": {"cli"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "matplotlib": {"viz"},
    "sklearn": {"adapters", "viz"},
    "sed_eval": {"detect"},
    "mteb": {"adapters"},
    "umap": {"viz"},
    "usearch": {"collection"},
    "av": {"audio"},
    "h5py": {"audio"},
    "transformers": set(),
    "librosa": set(),
}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """The dotted names a file imports, anywhere in it; ``from a import b`` counts as a.b."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively: name the package in full"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def upward_imports(path: Path) -> list[str]:
    """What a file imports from rooms that it may not know."""
    room = room_of(path)
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("melmask.")}
    return sorted(rooms - MAY_IMPORT[room] - {room})


by_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))


@by_file
def test_imports_run_one_way(path):
    assert room_of(path) in MAY_IMPORT, f"{path.name} is in no room of the house: give it one in MAY_IMPORT"
    assert not upward_imports(path)


@by_file
def test_a_library_is_known_only_where_it_belongs(path):
    libraries = {name.split(".")[0] for name in imports_of(path)}
    for library, rooms in ONLY_IN.items():
        assert library not in libraries or room_of(path) in rooms, f"{path.name} imports {library}"


@by_file
def test_everything_public_has_a_docstring(path):
    tree = parsed(path)
    assert not tree.body or ast.get_docstring(tree), f"{path.name} does not say what it is"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}:{node.lineno} {node.name} has no docstring"


@by_file
def test_files_are_short_and_named_for_what_they_hold(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


def test_the_rules_are_not_circular_and_would_catch_a_breach(tmp_path):
    for room, below in MAY_IMPORT.items():
        assert room not in below and all(room not in MAY_IMPORT[other] for other in below)
    breach = SOURCE / "frameworks" / "base.py"
    assert "masking" not in MAY_IMPORT[room_of(breach)] and "frameworks" not in MAY_IMPORT["masking"]
    file = tmp_path / "example.py"
    file.write_text("def f():\n    from melmask import masking\n    import matplotlib.pyplot as plt\n")
    assert imports_of(file) == {"melmask.masking", "matplotlib.pyplot"}
    assert len(FILES) > 20


def test_the_design_page_lists_every_file():
    page = (ROOT / "docs" / "design.md").read_text()
    house = page.partition("## 3. The house")[2].partition("```")[2].partition("tests/ benchmarks/")[0]
    rooms: dict[str, str] = {}
    for line in house.partition("src/melmask/\n")[2].splitlines():
        named = re.match(r"  (\w+)(/|\.py)", line)
        room = named[1] if named else room
        rooms[room] = rooms.get(room, "") + line
    for path in FILES:
        if path.name != "__init__.py":
            assert room_of(path) in rooms, f"{path.name} is in no room of docs/design.md"
            assert re.search(rf"\b{path.stem}\b", rooms[room_of(path)]), f"docs/design.md does not list {path.name}"
    assert set(rooms) == {room_of(path) for path in FILES}


PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def runs_code(node: ast.AST) -> bool:
    """Whether a call or an import reads what may be a program."""
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] in PICKLES for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return node.module in PICKLES and [alias.name for alias in node.names] != ["UnpicklingError"]
    if not isinstance(node, ast.Call):
        return False
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    called = ast.unparse(node.func)
    return (
        (called == "torch.load" and given.get("weights_only") != "True")
        or given.get("allow_pickle", "False") != "False"
        or given.get("trust_remote_code", "False") != "False"
        or called in ("eval", "exec", "os.system", "yaml.load", "yaml.unsafe_load")
        or given.get("shell", "False") != "False"
    )


@by_file
def test_nothing_that_is_read_can_run_code(path):
    found = [node.lineno for node in ast.walk(parsed(path)) if runs_code(node)]
    assert not found, f"{path.name}: lines {found}"


def test_what_would_run_code_is_found():
    for line in ("import pickle", "torch.load(p)", "np.load(p, allow_pickle=True)", "m(p, trust_remote_code=ask)"):
        assert any(runs_code(node) for node in ast.walk(ast.parse(line)))
