"""Text on its way to a terminal: what could steer it is escaped, what it cannot show is transliterated.

Everything that fastrec prints goes through ``say`` or ``shown``. Ids, titles, column names and file names come from
other people's files: ``\\x1b[31m`` in a title colours the screen, ``\\r`` overwrites the line, U+202E reverses it.
"""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

_JOINERS = "\u200c\u200d"
"""Format characters that words and emoji need: they join or part letters and do nothing else."""


def printable(text: str, keep: str = "") -> str:
    """Escape control characters, bidirectional and other invisible formats, line separators and lone surrogates.

    Parameters
    ----------
    text : str
        Any text.
    keep : str
        Characters left as they are, such as "\\n" in a text of several lines.

    Returns
    -------
    str
        ``\\x1b``, ``\\u202e`` or ``\\U000e0001`` in place of each, as in Python. A second call changes nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _steers(c) else _escaped(c) for c in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(text: str, stream: TextIO | None = None, keep: str = "") -> str:
    """``printable`` text that the stream's encoding can hold: what it lacks is transliterated, or else escaped.

    Parameters
    ----------
    text : str
        Any text.
    stream : text stream, optional
        Where it goes; left out: standard output.
    keep : str
        See ``printable``.
    """
    text = printable(text, keep)
    encoding = getattr(sys.stdout if stream is None else stream, "encoding", None) or "utf-8"
    if text.isascii() or _fits(text, encoding):
        return text
    return "".join(c if _fits(c, encoding) else _plain(c, keep) for c in unicodedata.normalize("NFC", text))


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    except LookupError:  # an encoding that Python lacks cannot be the stream's own
        return True
    return True


def _plain(character: str, keep: str) -> str:
    from unidecode import unidecode_expect_nonascii

    plain = printable(unidecode_expect_nonascii(character), keep)
    return plain if plain.strip() or not character.strip() else _escaped(character)


def say(text: str = "", *, err: bool = False, end: str = "\n", flush: bool = False, keep: str = "\n") -> None:
    """Print ``shown`` text on standard output, or on standard error; nothing where that stream is closed.

    Raises
    ------
    OSError
        If it cannot be written: a full disk, or a pipe without a reader.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is not None:
        print(shown(text, stream, keep), end=end, file=stream, flush=flush)


def say_json(value: Any) -> None:
    """Print JSON in plain ASCII: every control and every other character beyond it is a JSON escape."""
    say(json.dumps(value, ensure_ascii=True, indent=2).replace("\x7f", "\\u007f"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns for standard output, two spaces apart."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


class Parser(argparse.ArgumentParser):
    """Prints help and errors, which quote what was typed, by ``say``."""

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message, err=file is sys.stderr, end="")

    def error(self, message: str) -> NoReturn:
        """End with exit code 2; the message is one line."""
        super().error(printable(message))


def joined(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """``--user -x`` as ``--user=-x``: argparse takes a value that starts with a dash for an option.

    Only after options of one text value, and only for what is no option of ``parser`` or of a command of it.
    """
    known: set[str] = set()
    texts: set[str] = set()
    parsers = [parser]
    while parsers:
        for action in parsers.pop()._actions:
            known.update(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
            elif action.nargs is None and action.type in (None, str) and action.choices is None:
                texts.update(action.option_strings)
    out: list[str] = []
    for word in argv:
        if out and out[-1] in texts and word.startswith("-") and word != "--" and word not in known:
            out[-1] += f"={word}"
        else:
            out.append(word)
    return out
