"""Inject every fault of the catalogue, fuzz what is read, and write docs/reliability.md.

    make faults                          # all; or ONLY="names bounds", FUZZ=1000
    PYTHONPATH=tools python -m faults --only names --only fuzz-manifests

Each group's results replace those that tools/faults/results.jsonl has of it, so that a run can be made in pieces.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from faults import page, run
from faults.fuzz import FUZZED
from faults.run import GROUPS

MAX_BYTES = 8 * 2**30


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line, run the groups, keep their results, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], help=f"of {', '.join((*GROUPS, *FUZZED))}; repeatable")
    parser.add_argument("--num-fuzz", type=int, default=run.NUM_FUZZ, help="mutations of each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--results", type=Path, default=page.RESULTS, help="the file that results are kept in")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="the page to write")
    parser.add_argument("--text-only", action="store_true", help="inject nothing; write the page of what is kept")
    given = parser.parse_args(arguments)
    unknown = set(given.only) - {*GROUPS, *FUZZED}
    if unknown:
        sys.exit(f"no group {min(unknown)!r}: choose from {', '.join((*GROUPS, *FUZZED))}")
    if not given.text_only:
        work = Path(tempfile.mkdtemp(prefix="faults-"))
        os.environ["MELMASK_CACHE"] = str(work / "cache")
        resource.setrlimit(resource.RLIMIT_DATA, (MAX_BYTES, MAX_BYTES))  # what asks for more than that is a fault
        try:
            run.run(given.only or [*GROUPS, *FUZZED], work, given.results, given.num_fuzz, given.seed)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    bad = page.bad(page.kept(given.results))
    given.page.write_text(page.page(page.kept(given.results)), encoding="utf-8", errors="backslashreplace")
    for line in bad:
        print(f"{line['kind']}: {line['group']}: {line['what']}: {line['why']}")
    print(f"{given.page}: {len(bad)} faults are not safe")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
