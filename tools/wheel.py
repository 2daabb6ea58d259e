"""What hatchling adds to the wheel: the pages of the documentation, and a README whose links need no repository.

pyproject.toml names this file. It runs where only hatchling is installed, so src/melmask/pages.py is read by its path.
"""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


def pages_module(root: str) -> ModuleType:
    """`melmask.pages`, without the package."""
    spec = spec_from_file_location("pages", Path(root) / "src" / "melmask" / "pages.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Readme(MetadataHookInterface):
    """The README of the wheel's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See hatchling."""
        pages = pages_module(self.root)
        known = pages.pages(Path(self.root))
        text = pages.without_links(known["readme"], known)
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


class Documentation(BuildHookInterface):
    """The pages within the package; an editable install reads them where they lie."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling."""
        if version == "editable":
            return
        pages, root = pages_module(self.root), Path(self.root)
        for page in pages.pages(root).values():
            build_data["force_include"][str(page)] = f"melmask/{pages.SHIPPED.name}/{page.relative_to(root)}"
