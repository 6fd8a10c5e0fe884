"""The registry of formats: each module of this folder registers a ``Reader``, and the first that fits a path reads it.

A new format is one new file here. ``parts`` holds what the formats share.
"""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from fastrec.data.datasets.registry import SETS
from fastrec.data.readers.parts.columns import Table
from fastrec.data.readers.parts.text import lines_of
from fastrec.data.source import Columns, Source, present, suffix_of
from fastrec.errors import DataError, shown

PACKAGE = "fastrec.data.readers"

TEXT_ORDER = 20
"""From this order on, a format looks at the first line of text."""


class Probe:
    """What a format may look at to recognise a path; what is costly is read on first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def suffix(self) -> str:
        """The suffix in lower case, looking through ``.gz`` and ``.zst``."""
        return suffix_of(self.path)

    @cached_property
    def first(self) -> str:
        """The first line that is not blank.

        Raises
        ------
        DataError
            If the file holds none, or is of a kind that holds no text.
        """
        line = next((line for _, line in lines_of(self.path) if line.strip()), None)
        if line is None:
            raise DataError(f"{self.path}: there is nothing in the file; fetch it again")
        return line


@dataclass(frozen=True)
class Reader:
    """A format.

    Parameters
    ----------
    name : str
        What it is called; unique.
    about : str
        What error messages list among the known formats.
    sniff : callable
        Probe -> whether a file (or a folder) is in this format. The answer must be the same for any order of the lines
        that ``read`` accepts.
    read : callable
        (path, Columns) -> Source, or DataError with file and line.
    order : int
        Place among the formats: the first that recognises a path reads it. Below ``TEXT_ORDER``: by name or signature,
        before any line of text is read.
    main_files : tuple of str
        Names of the file that holds the interactions, in a folder of several files.
    suffixes : tuple of str
        Suffixes of tables with named columns in this format; a folder with one such file is read from that file.
    folder : bool
        Whether it reads folders as one source; ``sniff`` sees folders only then, files only otherwise.
    scan : callable, optional
        (path, Columns, extra) -> Table, of formats with named columns: so several files can be read as one table.
        ``extra`` are columns of one value, from the path (``day=3/``).
    by_path : tuple of str
        Further suffixes, which are read where a path names them but not looked for in a folder.
    """

    name: str
    about: str
    sniff: Callable[[Probe], bool]
    read: Callable[[Path, Columns], Source]
    order: int
    main_files: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    folder: bool = False
    scan: Callable[..., Table] | None = None
    by_path: tuple[str, ...] = ()


_REGISTERED: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Make a format known; one of the same name is replaced."""
    _REGISTERED[reader.name] = reader
    return reader


def readers() -> list[Reader]:
    """Every format in the order in which they are tried; the modules of the folder are imported on the first call."""
    package = import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            import_module(f"{PACKAGE}.{module.name}")
    return sorted(_REGISTERED.values(), key=lambda reader: (reader.order, reader.name))


def suffixes() -> tuple[str, ...]:
    """Suffixes of tables with named columns."""
    return tuple(suffix for reader in reversed(readers()) for suffix in reader.suffixes)


def by_suffix(suffix: str) -> Reader | None:
    """The format of tables with a suffix, if there is one."""
    return next((reader for reader in readers() if suffix in (*reader.suffixes, *reader.by_path)), None)


def known() -> str:
    """The formats, for messages."""
    told = [reader.about for reader in sorted(readers(), key=lambda reader: reader.order < TEXT_ORDER)]
    return f"{', '.join(told[:-1])}, or {told[-1]}; text also as .gz or .zst"


def read_source(path: Path, columns: Columns | None = None) -> Source:
    """Read a file or folder in any known format.

    Raises
    ------
    DataError
        If nothing is there, the format is not known, or the content is malformed (with its line).
    ConfigError
        If columns are named for a format that has none.
    """
    columns = columns or Columns()
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the path of a log in a known format: {known()}")
    reader, source = recognise(path)
    return reader.read(source, columns)


def recognise(path: Path) -> tuple[Reader, Path]:
    """The format of a file or folder, and the file of the folder that holds the interactions, or the folder itself.

    Raises
    ------
    DataError
        If no format fits.
    """
    every = readers()
    if path.is_dir():
        whole = next((reader for reader in every if reader.folder and reader.sniff(Probe(path))), None)
        if whole is not None:
            return whole, path
    file = main_file(path)
    probe = Probe(file)
    found = next((reader for reader in every if not reader.folder and reader.sniff(probe)), None)
    found = found or by_suffix(probe.suffix)
    if found is None:
        raise DataError(f"{file}: the first line, {shown(probe.first)}, fits no known format. Known are: {known()}")
    return found, file


def main_file(path: Path) -> Path:
    """The file of a folder that holds the interactions, or the path itself if it is a file.

    Raises
    ------
    DataError
        If the folder holds none, or several that are equally likely.
    """
    if not path.is_dir():
        return path
    for reader in sorted(readers(), key=lambda reader: reader.order < TEXT_ORDER):  # text first
        for name in reader.main_files:
            found = present(path, name)
            if found is not None:
                return found
    ends = suffixes()
    tables = sorted(p for p in path.iterdir() if p.is_file() and suffix_of(p) in ends)
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = ", ".join(p.name for p in tables[:8])
        raise DataError(f"{path}: several files could hold the interactions ({names}); give the path of one of them")
    there = ", ".join(sorted(p.name for p in path.iterdir())[:12])
    content = f"no log in a known format, only {there}" if there else "an empty folder"
    hidden = (
        ". It hides the data set of that name: give that one by its path, or start fastrec from another folder"
        if os.fspath(path) in SETS
        else ""
    )
    raise DataError(f"{path}: {content}{hidden}. Known are: {known()}")
