"""Downloads: from an address, checked, whole; from a server of our own on this machine."""

from __future__ import annotations

import functools
import http.server
import io
import tarfile
import threading

import pytest
from distributed import DATA

from staf.data.card import builtin_cards
from staf.data.fetch import Download, cache_folder, download, downloaded, members_digest
from staf.errors import DamagedFile, MissingData
from staf.io import sha256_of


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A folder that is served over HTTP, its address, and a cache of the test's own."""
    folder = tmp_path / "served"
    folder.mkdir()
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    handler = functools.partial(Silent, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_files_come_once_and_are_found_without_a_network_afterwards(server):
    folder, address = server
    (folder / "a.csv").write_text("one")
    (folder / "b.csv").write_text("two")
    files = [Download(path=f"deep/{n}.csv", url=f"{address}/{n}.csv", sha256=sha256_of(folder / f"{n}.csv")) for n in "ab"]
    assert downloaded("beasts", files) is None
    found = download("beasts", files)
    assert (found / "deep" / "b.csv").read_text() == "two"
    (folder / "a.csv").unlink()
    assert download("beasts", files) == downloaded("beasts", files) == found
    for change in ({"path": "c.csv"}, {"url": f"{address}/c.csv"}, {"sha256": "0" * 64}):
        assert downloaded("beasts", [files[0].model_copy(update=change), files[1]]) is None


def test_a_file_that_is_another_one_is_refused_and_not_kept(server):
    folder, address = server
    (folder / "a.csv").write_text("another")
    files = (Download(path="a.csv", url=f"{address}/a.csv", sha256="0" * 64),)
    with pytest.raises(DamagedFile, match="is not the file that staf was made with"):
        download("beasts", files)
    assert downloaded("beasts", files) is None
    assert not list((cache_folder() / "downloads" / "beasts").glob("*.csv"))


def test_a_stopped_fetch_goes_on_with_what_is_missing(server):
    folder, address = server
    (folder / "a.csv").write_text("one")
    first = Download(path="a.csv", url=f"{address}/a.csv", sha256=sha256_of(folder / "a.csv"))
    files = (
        first,
        Download(path="b.csv", url=f"{address}/b.csv", sha256="0" * 64),
    )
    with pytest.raises(MissingData, match=r"cannot be fetched.*--data-dir FOLDER"):
        download("beasts", files)
    (folder / "a.csv").unlink()
    (folder / "b.csv").write_text("two")
    files = (
        first,
        Download(path="b.csv", url=f"{address}/b.csv", sha256=sha256_of(folder / "b.csv")),
    )
    assert sorted(p.name for p in download("beasts", files).iterdir()) == ["a.csv", "b.csv", "files.json"]


def test_a_file_that_was_cut_afterwards_is_fetched_again(server):
    folder, address = server
    (folder / "a.csv").write_text("one")
    files = (Download(path="a.csv", url=f"{address}/a.csv", sha256=sha256_of(folder / "a.csv")),)
    (download("beasts", files) / "a.csv").write_text("o")
    assert downloaded("beasts", files) is None
    assert (download("beasts", files) / "a.csv").read_text() == "one"


def pack(path, top: str, **files: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"{top}/{name}.xml")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


def test_an_archive_is_known_by_its_members_whatever_its_host_calls_the_top_folder(server):
    folder, address = server
    pack(folder / "old.tar.gz", "beasts-master", a="one", b="two")
    pack(folder / "new.tar.gz", "beasts-1234", b="two", a="one")
    digest = members_digest(folder / "old.tar.gz", "*.xml")
    files = (Download(path="beasts.tar.gz", url=f"{address}/new.tar.gz", sha256=digest, members="*.xml"),)
    assert (download("beasts", files) / "beasts.tar.gz").is_file()


def test_an_archive_with_other_members_is_refused(server):
    folder, address = server
    pack(folder / "old.tar.gz", "x", a="one")
    pack(folder / "new.tar.gz", "x", a="two")
    digest = members_digest(folder / "old.tar.gz", "*.xml")
    files = (Download(path="beasts.tar.gz", url=f"{address}/new.tar.gz", sha256=digest, members="*.xml"),)
    with pytest.raises(DamagedFile):
        download("beasts", files)
    assert not (cache_folder() / "downloads" / "beasts" / "beasts.tar.gz").exists()


def test_every_pinned_file_belongs_to_an_open_data_set_and_is_pinned_for_good():
    found = {card.name: card.downloads for card in builtin_cards().values() if card.downloads}
    assert len(found) >= 15
    for name, files in found.items():
        assert builtin_cards()[name].access == "open", name
        assert len({file.path for file in files}) == len(files)
        for file in files:
            assert file.url.startswith("https://")
            assert "/master/" not in file.url
            assert len(file.sha256) == 64


@pytest.mark.parametrize("name", [card.name for card in builtin_cards().values() if card.downloads])
def test_the_pinned_checksums_are_those_of_the_distributed_files(name):
    if not (DATA / name).is_dir():
        pytest.skip(f"{name} is not in the data folder; set STAF_DATA to a folder that has it")
    for file in builtin_cards()[name].downloads:
        path = DATA / name / file.path
        assert (members_digest(path, file.members) if file.members else sha256_of(path)) == file.sha256
