"""Packages: a pinned wheel comes in whole, checked, without its code; anything else is refused.

Real pip, no network: it looks only into a folder of wheels that the test wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from staf.data.fetch import Package, cache_folder, fetch_package, fetched_package, packages
from staf.errors import DamagedFile, MissingData
from staf.io import sha256_of

MEMBERS = ("made_up/data/",)


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder of wheels, the only place where pip looks, and a cache of the test's own."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def copied(shelf, monkeypatch):
    """The same, and the wheel is copied, as pip would: starting pip costs a second."""

    def run(command, **_):
        target = Path(command[command.index("--dest") + 1])
        target.mkdir(exist_ok=True)
        for path in shelf.iterdir():
            shutil.copy(path, target)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("staf.data.fetch.subprocess.run", run)
    return shelf


def make_wheel(folder: Path, extra: dict[str, bytes] | None = None, link: str = "") -> Package:
    """A small wheel with two data files and some code, pinned by its own checksum."""
    path = folder / "made_up-1.0-py3-none-any.whl"
    info = "made_up-1.0.dist-info"
    contents = {
        "made_up/__init__.py": b"raise SystemExit('code of a data package was run')",
        "made_up/data/a.txt": b"one\n",
        "made_up/data/deep/b.txt": b"two\n",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **(extra or {}),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, "/etc")
    return Package(name="made-up", version="1.0", sha256=sha256_of(path), members=MEMBERS)


def test_only_the_members_of_a_wheel_are_kept_and_the_second_call_needs_no_wheel(shelf):
    package = make_wheel(shelf)
    assert fetched_package(package) is None
    folder = fetch_package(package)
    kept = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    assert kept == ["files.json", "made_up/data/a.txt", "made_up/data/deep/b.txt"]
    assert (folder / "made_up/data/a.txt").read_bytes() == b"one\n"
    next(shelf.iterdir()).unlink()
    assert fetch_package(package) == fetched_package(package) == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize("harm", ["cut", "removed", "no marker", "marker altered"])
def test_a_folder_that_is_not_whole_is_fetched_again(copied, harm):
    package = make_wheel(copied)
    folder = fetch_package(package)
    if harm == "cut":
        (folder / "made_up/data/a.txt").write_bytes(b"o")
    elif harm == "removed":
        (folder / "made_up/data/deep/b.txt").unlink()
    elif harm == "no marker":
        (folder / "files.json").unlink()
    else:
        record = json.loads((folder / "files.json").read_text())
        (folder / "files.json").write_text(json.dumps(record | {"wanted": {}}))
    assert fetched_package(package) is None
    assert (fetch_package(package) / "made_up/data/a.txt").read_bytes() == b"one\n"
    assert (folder / "made_up/data/deep/b.txt").read_bytes() == b"two\n"


@pytest.mark.parametrize("change", [{"version": "2.0"}, {"sha256": "0" * 64}, {"members": ("made_up/",)}])
def test_what_was_fetched_is_another_packages_where_any_part_of_it_differs(copied, change):
    package = make_wheel(copied)
    fetch_package(package)
    assert fetched_package(package.model_copy(update=change)) is None


def test_a_wheel_with_another_checksum_is_refused_and_leaves_nothing(shelf):
    make_wheel(shelf)
    with pytest.raises(DamagedFile, match=r"SHA-256.*000000.*expected"):
        fetch_package(Package(name="made-up", version="1.0", sha256="0" * 64, members=MEMBERS))
    assert list((cache_folder() / "packages").iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.txt", "made_up/data/../../../x", "/etc/x", "made_up\\..\\x", "C:/x"])
def test_a_path_that_leads_out_of_the_folder_is_refused(copied, tmp_path, name):
    package = make_wheel(copied, extra={name: b"out"})
    with pytest.raises(DamagedFile, match="leads outside"):
        fetch_package(package)
    assert fetched_package(package) is None
    assert not list(tmp_path.rglob("outside.txt"))


def test_a_symbolic_link_is_refused(copied):
    package = make_wheel(copied, link="made_up/data/link")
    with pytest.raises(DamagedFile, match="symbolic link"):
        fetch_package(package)


def test_a_member_that_the_wheel_lacks_is_an_error(copied):
    package = make_wheel(copied)
    with pytest.raises(DamagedFile, match=r"does not hold made_up/other\.txt"):
        fetch_package(package.model_copy(update={"members": (*MEMBERS, "made_up/other.txt")}))


def test_a_file_named_pip_in_the_working_folder_is_not_run(shelf, tmp_path, monkeypatch):
    package = make_wheel(shelf)
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip was run')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep)  # an empty entry is the working folder
    assert (fetch_package(package) / "made_up/data/a.txt").is_file()


def test_a_wheel_that_cannot_be_reached_says_how_to_do_without_a_network(shelf):
    with pytest.raises(MissingData, match="PIP_FIND_LINKS"):
        fetch_package(Package(name="made-up", version="1.0", sha256="0" * 64, members=MEMBERS))


def test_the_cache_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"
    monkeypatch.delenv("STAF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "staf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "staf"


@pytest.mark.parametrize("package", packages().values(), ids=lambda p: p.name)
def test_every_package_is_pinned_by_a_full_checksum_and_names_relative_members(package):
    assert len(bytes.fromhex(package.sha256)) == 32
    assert package.members
    assert not any(m.startswith("/") or ".." in m for m in package.members)


def test_the_catalogue_starts_without_torch_or_pyarrow():
    code = (
        "import sys; from staf.data.card import builtin_cards; [card.row(None) for card in builtin_cards().values()]; "
        "print({*sys.modules} & {'torch', 'pyarrow'})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "set()"
