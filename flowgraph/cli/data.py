"""`flowgraph data list`, `get` and `path`: which data sets there are, getting them, and where they lie."""

from __future__ import annotations

from argparse import Namespace

from flowgraph.datasets.cache import VARIABLE, data_folder, how_to_get, place_of, state_of
from flowgraph.datasets.catalogue import CATALOGUE, Entry, find
from flowgraph.datasets.fetch import get, get_all
from flowgraph.errors import InputError

ACTIONS = ("list", "get", "path")


def data(arguments: Namespace) -> int:
    """Do what is asked for; the errors of `datasets` say what went wrong."""
    entries = [find(name) for name in arguments.names]
    if arguments.given is not None and (arguments.action != "get" or len(entries) != 1):
        raise InputError("--from belongs to one data set that is got", hint="flowgraph data get NAME --from PATH")
    if arguments.action == "get":
        return _get(entries, arguments)
    if arguments.action == "path":
        print(*(place_of(entry) for entry in entries) if entries else (data_folder(),), sep="\n")
    else:
        _list(entries)
    return 0


def _get(entries: list[Entry], arguments: Namespace) -> int:
    if not entries:
        raise InputError("which data set?", hint=f"flowgraph data get NAME; there are {', '.join(CATALOGUE)}")
    missing = [entry for entry in entries if arguments.given is not None or state_of(entry) != "here"]
    if arguments.given is None:
        get_all(missing)
    else:
        get(missing[0], arguments.given)
    for entry in entries:
        print(f"{entry.name}{'' if entry in missing else ' is here already'}: {place_of(entry)}")
        print(f"  licence: {entry.licence}\n  please cite: {entry.citation}")
    return 0


def _list(entries: list[Entry]) -> None:
    """A table of all; of those that were named, everything there is to know."""
    if not entries:
        width = max(map(len, CATALOGUE))
        for entry in CATALOGUE.values():
            print(f"{entry.name:<{width}}  {state_of(entry):<7}  {entry.size / 1e6:5.1f} MB  {entry.title}")
        print(f"\nin {data_folder()}; ${VARIABLE} moves them")
    for entry in entries:
        print(f"{entry.name}: {entry.title}")
        print(f"  {state_of(entry)}: {place_of(entry)}")
        print(f"  licence: {entry.licence}\n  please cite: {entry.citation}\n  to get it: {how_to_get(entry)}")
