"""Files that arrive from a public address: fetched once, checked against a pinned checksum, complete or not taken.

    cache/downloads/<name>/...           the files, under the paths that the data set's reader looks for
    cache/downloads/<name>/files.json    written last: each file's size

Addresses are pinned to a commit or a release in `downloads.json`. A stopped fetch goes on with the files that are missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from staf.data.archives import members
from staf.data.packages import cache_folder
from staf.errors import BadData, DamagedFile, MissingData, StafError
from staf.io import read_json, write_json

MARKER = "files.json"


@dataclass(frozen=True)
class Download:
    """One file at a public address."""

    path: str
    """Where it belongs in the data set's folder."""
    url: str
    """Pinned to a commit or a release."""
    sha256: str
    """Of its bytes; of an archive, of the members that are wanted (`members_digest`)."""
    members: str = ""
    """For an archive that its host packs anew each time: which members are wanted, as a pattern; '' for a plain file."""


@cache
def downloads() -> dict[str, tuple[Download, ...]]:
    """The public files of each data set that has some, by its name."""
    text = (resources.files("staf.data") / "downloads.json").read_text(encoding="utf-8")
    return {name: tuple(Download(**entry) for entry in entries) for name, entries in json.loads(text).items()}


def downloaded(name: str) -> Path | None:
    """The folder that holds all files of a data set, or None; never uses the network."""
    folder = cache_folder() / "downloads" / name
    wanted = [asdict(file) for file in downloads().get(name, ())]
    try:
        record = read_json(folder / MARKER)
        whole = record["wanted"] == wanted and all((folder / p).stat().st_size == s for p, s in record["sizes"].items())
    except (MissingData, DamagedFile, OSError, KeyError, TypeError, AttributeError):
        return None
    return folder if wanted and whole else None


def download(name: str) -> Path:
    """The folder that holds all files of a data set; fetches only those that are not there yet.

    Raises:
        MissingData: the data set has no public files, or one of them cannot be reached.
        DamagedFile: a file is not the pinned one; it was not kept.
        StafError: the cache cannot be written.
    """
    if ready := downloaded(name):
        return ready
    files = downloads().get(name, ())
    if not files:
        raise MissingData(f"'{name}' has no public address. See: staf data fetch {name}")
    folder = cache_folder() / "downloads" / name
    for file in files:
        _fetch(name, file, folder)
    sizes = {file.path: (folder / file.path).stat().st_size for file in files}
    write_json(folder / MARKER, {"wanted": [asdict(file) for file in files], "sizes": sizes})
    return folder


def members_digest(archive: Path, pattern: str) -> str:
    """SHA-256 over the paths (without the top folder, whose name changes) and contents of an archive's members.

    Raises:
        BadData: the archive is damaged or not to be trusted.
    """
    found = sorted((name.partition("/")[2], hashlib.sha256(data).hexdigest()) for name, data in members(archive, pattern))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in found).encode()).hexdigest()


def _fetch(name: str, file: Download, folder: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    target = folder / file.path
    known = None if file.members else f"sha256:{file.sha256}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(file.url, known, fname=target.name, path=target.parent)
        if file.members and members_digest(target, file.members) != file.sha256:
            target.unlink()
            raise ValueError("its members are others")
    except requests.RequestException as error:
        raise MissingData(
            f"{file.url} cannot be fetched ({type(error).__name__}). Check the network, or get the file elsewhere and put it "
            f"into a folder '{name}' as {file.path}; then name the folder above it: --data-dir FOLDER or STAF_DATA."
        ) from error
    except (ValueError, BadData) as error:
        raise DamagedFile(
            f"{file.url} is not the file that staf was made with (SHA-256 {file.sha256[:16]}.. is expected); nothing of it "
            "was kept. Try again later, or report it."
        ) from error
    except OSError as error:
        raise StafError(
            f"cannot keep {file.path} in {folder}: {error.strerror or error}. "
            "Free some space, or set STAF_CACHE to a folder that can be written, and run the same command again."
        ) from error
