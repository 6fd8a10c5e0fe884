"""Named data sets: found on this machine, or fetched from publisher or mirror and checked against a pinned hash."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastrec.data.content import PACKED, expanded, one_line
from fastrec.data.datasets.fetch import SILENCE_S, download, exclusive, sweep, unpack
from fastrec.errors import DataError, DataNotFoundError, FastrecError
from fastrec.files import make_folder, reason
from fastrec.terminal import say

_GROUPLENS = "https://files.grouplens.org/datasets/movielens"
_MIRROR = "https://huggingface.co/datasets/Recommenders/MovieLens/resolve/main"
_LICENCE = (
    "GroupLens: for research, with acknowledgement (Harper & Konstan 2015); no commercial use or redistribution "
    "without permission"
)


@dataclass(frozen=True)
class DataSet:
    """Description of a named set.

    Parameters
    ----------
    name : str
        Name, and name of its folder.
    summary : str
        One line.
    licence : str
        One line.
    page : str
        Where people read about it and can download it manually.
    required : tuple of str
        Files without which the folder is incomplete (a ``.gz`` of the same name will do).
    urls : tuple of str
        Publisher and mirrors of one zip archive; empty if it is read from a folder only.
    members : tuple of str
        Files unpacked from the archive.
    inner : str
        Folder in the archive that holds them.
    n_bytes, md5, sha256
        Pins of the archive. A set without a digest is never fetched.
    """

    name: str
    summary: str
    licence: str
    page: str
    required: tuple[str, ...]
    urls: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    inner: str = ""
    n_bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def fetchable(self) -> bool:
        """Whether it has a source and a pinned digest."""
        return bool(self.urls and (self.md5 or self.sha256))

    def missing_from(self, folder: Path) -> list[str]:
        """The required files that ``folder`` lacks."""
        return [f for f in self.required if not any((folder / f"{f}{end}").is_file() for end in ("", *PACKED))]


def _movielens(
    name: str, summary: str, members: str, *, mirrored: bool, inner: str | None = None, **pins: int | str
) -> DataSet:
    files = tuple(members.split())
    urls = (f"{_GROUPLENS}/{name}.zip", *((f"{_MIRROR}/{name}.zip",) if mirrored else ()))
    page = f"https://grouplens.org/datasets/movielens/{name.removeprefix('ml-')}/"
    return DataSet(
        name, summary, _LICENCE, page, files[:1], urls, files, inner or name,
        **pins,  # type: ignore[arg-type]
    )  # fmt: skip


_ALL = (
    _movielens(
        "ml-100k", "100,000 ratings, 943 users, 1,682 films (1998)",
        "u.data u.item u.user u.genre u.info u.occupation README", mirrored=True,
        n_bytes=4_924_029, md5="0e33842e24a9c977be4e0107933c0723",
        sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    _movielens(
        "ml-1m", "1,000,209 ratings, 6,040 users, 3,706 rated films (2003)",
        "ratings.dat movies.dat users.dat README", mirrored=True,
        n_bytes=5_917_549, md5="c4d9eecfca2ab87c1945afe126590906",
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
    _movielens(
        "ml-10m", "10,000,054 ratings, 69,878 users, 10,677 films (2009)",
        "ratings.dat movies.dat README.html", mirrored=True, inner="ml-10M100K",
        n_bytes=65_566_137, md5="ce571fd55effeba0271552578f2648bd",
    ),
    _movielens(
        "ml-20m", "20,000,263 ratings, 138,493 users, 26,744 rated films (2015)",
        "ratings.csv movies.csv links.csv README.txt", mirrored=True,
        n_bytes=198_702_078, md5="cd245b17a1ae2cc31bb14903e1204af3",
    ),
    _movielens(
        "ml-25m", "25,000,095 ratings, 162,541 users, 59,047 rated films (2019)",
        "ratings.csv movies.csv links.csv README.txt", mirrored=False,
        n_bytes=261_978_986, md5="6b51fb2759a8657d3bfcbfc42b592ada",
    ),
    _movielens(
        "ml-32m", "32,000,204 ratings, 200,948 users, 84,432 rated films (2024)",
        "ratings.csv movies.csv links.csv README.txt", mirrored=False,
        n_bytes=238_950_008, md5="d472be332d4daa821edc399621853b57",
    ),
    DataSet(
        "ml-latest-small", "about 100,000 ratings by 600 users; the publisher replaces it now and then",
        "GroupLens: for research, with acknowledgement; redistribution under the same conditions",
        "https://grouplens.org/datasets/movielens/latest/", ("ratings.csv",),
    ),
    DataSet(
        "ncf-ml-1m", "MovieLens-1M as split by the NCF paper, with its 99 test negatives per user (2017)", _LICENCE,
        "https://github.com/hexiangnan/neural_collaborative_filtering/tree/master/Data",
        ("ml-1m.train.rating", "ml-1m.test.rating", "ml-1m.test.negative"),
    ),
    DataSet(
        "gowalla", "1,027,370 check-ins, 29,858 users, 40,981 places, split by the NGCF paper (2019)",
        "no explicit licence; used for research",
        "https://github.com/xiangwang1223/neural_graph_collaborative_filtering/tree/master/Data/gowalla",
        ("train.txt", "test.txt"),
    ),
)  # fmt: skip

SETS: dict[str, DataSet] = {s.name: s for s in _ALL}
"""Every named set, by name. Digests: the publisher's own ``.md5`` files; sha256 as computed from those archives."""


def cache_dir() -> Path:
    """The folder of fetched sets: ``$XDG_CACHE_HOME/fastrec``, else ``~/.cache/fastrec``. Not created here.

    Raises
    ------
    DataError
        If neither is known.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base) / "fastrec"
    try:
        return Path("~/.cache").expanduser() / "fastrec"
    except RuntimeError:
        raise DataError(
            "this user has no home folder to keep a cache in; set XDG_CACHE_HOME or FASTREC_DATA to a folder"
        ) from None


def data_dir() -> Path | None:
    """The folder that ``FASTREC_DATA`` names, or None.

    Raises
    ------
    DataError
        If it starts with the home folder of a user that there is not.
    """
    given = os.environ.get("FASTREC_DATA")
    return expanded(given, f"FASTREC_DATA={given}") if given else None


def _looked(folder: Path, known: DataSet) -> tuple[bool, list[str]]:
    """Whether the folder exists, and which required files it lacks; what cannot be read is a ``DataError``."""
    with one_line(folder):
        return folder.is_dir(), known.missing_from(folder)


def find(name: str) -> Path | None:
    """The folder of a named set under ``$FASTREC_DATA`` or in the cache, or None; touches no network.

    Raises
    ------
    DataError
        If there is such a folder under ``$FASTREC_DATA`` but it is incomplete: it is the user's own, so it is neither
        passed over nor overwritten. Also if a folder cannot be read.
    """
    given = data_dir()
    there, missing = _looked(given / name, SETS[name]) if given is not None else (False, [])
    if given is not None and there:
        if missing:
            raise DataError(
                f"{given / name} has no {missing[0]}: put the files of {name} there ({SETS[name].page}), or remove the "
                "folder, so that the set is looked for elsewhere"
            )
        return given / name
    try:
        cached = cache_dir() / name
    except DataError:
        return None  # no home folder: nothing was ever fetched
    there, missing = _looked(cached, SETS[name])
    complete = there and not missing
    sweep(cached.parent, name, complete=complete)
    return cached if complete else None


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    allow_path: bool = True,
    allow_fetch: bool = True,
    progress: bool = True,
) -> Path:
    """The file or folder of a path or of a named data set, fetched if necessary.

    Looked for in this order: a path as given; ``$FASTREC_DATA/NAME``; the cache; the publisher; its mirror.

    Parameters
    ----------
    name_or_path : str or path
        A file, a folder, or a name of ``SETS``; any other folder under ``$FASTREC_DATA`` goes by its name too.
    allow_path : bool
        Whether it may be a path at all.
    allow_fetch : bool
        Whether the network may be used.
    progress : bool
        Say on stderr what is fetched, with a progress bar.

    Raises
    ------
    DataNotFoundError
        If a known set is not on this machine and cannot be fetched: why, which folder to fill, and how.
    DataError
        If neither path nor name is known, or a folder is incomplete.
    """
    name = os.fspath(name_or_path)
    if allow_path:
        with one_line(name_or_path):
            path = expanded(name_or_path)
            if path.exists():
                return path
    if name not in SETS:
        return _unlisted(name, allow_path)
    there = find(name)
    if there is not None:
        return there
    if not allow_fetch or not SETS[name].fetchable:
        raise DataNotFoundError(f"{name} is not on this machine. {_by_hand(SETS[name])}")
    return fetch(name, progress=progress)


def fetch(
    name: str | DataSet,
    *,
    folder: str | os.PathLike[str] | None = None,
    urls: Sequence[str] | None = None,
    progress: bool = True,
    silence_s: float = SILENCE_S,
) -> Path:
    """Download a set, check it against its pins, and put it in place atomically; nothing is done if it is there.

    Parameters
    ----------
    name : str or DataSet
        A name of ``SETS``, or a set of your own.
    folder : path, optional
        Folder that holds the sets; the cache if left out.
    urls : sequence of str, optional
        Sources to use instead of the set's own: a mirror nearer by. The pins stay.
    progress : bool
        Say on stderr what is fetched, with a progress bar.
    silence_s : float
        Seconds without one byte, over all sources together, after which it gives up.

    Returns
    -------
    Path
        ``folder/NAME``.

    Raises
    ------
    DataNotFoundError
        If no source gave the pinned bytes: why, and how to provide the set manually.
    DataError
        If the name is unknown, or the folder cannot be written.

    Guarantee
    ---------
    ``folder/NAME`` is complete or absent at any moment, also when several processes fetch it at once (one does, the
    others wait). An interrupted download goes on from where it stopped.
    """
    if isinstance(name, str) and name not in SETS:
        raise DataError(_unknown(name))
    known = SETS[name] if isinstance(name, str) else name
    base = Path(folder) if folder is not None else cache_dir()
    target = base / known.name
    for other in [known, *SETS.values()]:
        there, missing = _looked(base / other.name, other)
        sweep(base, other.name, complete=there and not missing)
    if _looked(target, known) == (True, []):
        return target
    if not known.fetchable:
        raise DataNotFoundError(f"{known.name} has no pinned hash, so it is not fetched. {_by_hand(known, base)}")
    sources = tuple(urls) if urls is not None else known.urls
    try:
        make_folder(base)
        (base / f".{known.name}.lock").touch()
    except (OSError, FastrecError) as error:
        raise DataError(
            f"{base}: cannot be written: {reason(error.__cause__ or error)}; name another folder with XDG_CACHE_HOME, "
            f"or set FASTREC_DATA to a folder that holds {known.name}/"
        ) from None
    with exclusive(base / f".{known.name}.lock"):
        if target.is_dir() and not known.missing_from(target):
            return target  # another process was faster
        if progress:
            say(f"{known.name}: fetching {_megabytes(known)} to {target}\nlicence: {known.licence}", err=True)
        part = base / f"{known.name}.zip.part"
        pins = {"n_bytes": known.n_bytes, "md5": known.md5, "sha256": known.sha256}
        try:
            download(sources, part, label=known.name, progress=progress, silence_s=silence_s, **pins)  # type: ignore[arg-type]
        except DataNotFoundError as error:
            raise DataNotFoundError(f"{error}\n{_by_hand(known, base)}") from None
        unpack(part, target, {f"{known.inner}/{m}" if known.inner else m: m for m in known.members})
        with contextlib.suppress(OSError):  # costs space only: ``sweep`` removes it once the set is complete
            part.unlink()
    return target


def found() -> list[tuple[str, str | None, str]]:
    """Every named set as (name, folder or None, state), for listings; touches no network."""
    from fastrec.data.synthetic.generator import SHAPES

    rows: list[tuple[str, str | None, str]] = []
    for name, known in SETS.items():
        try:
            there = find(name)
            if there is None:
                cache_dir()  # without one nothing can be fetched
            how = f"can be fetched, {_megabytes(known)}" if known.fetchable else f"manually, from {known.page}"
            rows.append((name, str(there) if there else None, "ready" if there else how))
        except DataError as error:
            rows.append((name, *_fault(name, error)))
    rows += [(name, None, f"generated: {u:,} x {i:,}, {e:,} interactions") for name, (u, i, e) in SHAPES.items()]
    return rows


def _fault(name: str, error: DataError) -> tuple[str | None, str]:
    """(folder, state) of a set that ``find`` refused."""
    try:
        given = data_dir()
        if given is not None:
            there, missing = _looked(given / name, SETS[name])
            if there and missing:
                return str(given / name), f"incomplete: no {', '.join(missing)}"
    except DataError:
        pass  # it is what ``error`` says
    return None, str(error)


def _unlisted(name: str, allow_path: bool) -> Path:
    """A folder under ``$FASTREC_DATA`` that is not a known set, or the error that fits."""
    given = data_dir()
    plain = Path(name).name == name and name not in {"", ".", ".."}
    with one_line(name):
        if plain and given is not None and (given / name).exists():
            return given / name
    if allow_path and (not plain or Path(name).suffix or os.sep in name):
        raise DataError(f"{name}: no such file or folder (looked from {Path.cwd()})")
    raise DataError(_unknown(name))


def _unknown(name: str) -> str:
    from fastrec.data.synthetic.generator import SHAPES

    names = [*SETS, *SHAPES]
    if name in SHAPES:
        return f"{name} is generated, not read: use fastrec.data.synthetic.generator.make({name!r})"
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{name!r} is neither a file or folder nor a known data set{hint} Known sets: {', '.join(names)}"


def _megabytes(known: DataSet) -> str:
    return f"{known.n_bytes / 1e6:.1f} MB" if known.n_bytes else "an archive"


def _by_hand(known: DataSet, base: Path | None = None) -> str:
    """Advice: which folder to fill, and how."""
    given = data_dir()
    place = (base or given or cache_dir()) / known.name
    source = f"download {known.urls[0]} and unpack it" if known.urls else f"get the files from {known.page}"
    if given is None:
        env = f", or set FASTREC_DATA to a folder that holds {known.name}/ with the same files"
    elif not known.missing_from(given):
        env = f", or, since FASTREC_DATA={given} holds {known.required[0]} itself, pass that folder as the data"
    else:
        env = f" (FASTREC_DATA={given} holds no folder {known.name})"
    return f"To provide it manually: {source}, so that {place / known.required[0]} exists{env}."
