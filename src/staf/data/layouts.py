"""Where the source files of a corpus lie: the layouts in which they circulate, as its card lists them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from staf.errors import BadData, MissingData

PACKED = (".gz", ".zip", ".xlsx")
"""Ends of files that are not also looked for as .gz."""

Files = Sequence[tuple[str, Path]]
"""Source files of a corpus, each with its part: a split, or a name that its reader knows."""


def locate(folder: Path, layouts: Sequence[Mapping[str, Sequence[str]]], dataset: str) -> Files:
    """The source files of the first layout that is complete under `folder`, in the order of its parts.

    A layout maps parts to glob patterns, of which the first that matches counts, plain or gzipped. A part has one file; 'part?'
    may be missing, 'part*' may have several. Hidden files are passed over.

    Raises:
        MissingData: no layout is complete.
        BadData: several files are there where one is expected.
    """
    missing = []
    for layout in layouts:
        found = {part: _matching(folder, patterns) for part, patterns in layout.items()}
        if lacking := [" or ".join(layout[part]) for part in found if not found[part] and "?" not in part]:
            missing.append(", ".join(lacking))
            continue
        for paths in (paths for part, paths in found.items() if len(paths) > 1 and "*" not in part):
            names = ", ".join(path.name for path in paths[:3])
            raise BadData(
                f"{dataset}: {folder} holds {len(paths)} files where one is expected ({names}). Keep only one of them."
            )
        return [(part.rstrip("?*"), path) for part, paths in found.items() for path in paths]
    if missing[0].startswith("../"):  # the data set of a folder next to this one
        dataset = missing[0].split("/")[1]
    raise MissingData(
        f"{dataset} not found in {folder} (looked for {'; or '.join(missing)}). "
        f"Get it: staf data fetch {dataset}, or name the folder that holds it."
    )


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of the first pattern that matches, sorted by name."""
    for pattern in patterns:
        for packed in ("",) if pattern.endswith(PACKED) else ("", ".gz"):
            paths = sorted(path for path in folder.glob(pattern + packed) if path.is_file())
            if visible := [path for path in paths if not is_hidden(path.relative_to(folder))]:
                return visible
    return []


def is_hidden(path: PurePath) -> bool:
    """True for what the system keeps next to files: '._notes.csv', '.git/..', '__MACOSX/..'."""
    return any(part == "__MACOSX" or (part.startswith(".") and part.strip(".")) for part in path.parts)
