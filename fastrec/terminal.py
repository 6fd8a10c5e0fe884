"""Text on its way to a terminal: what could steer it is escaped, what it cannot show is transliterated.

Everything that fastrec prints goes through ``say`` or ``shown``. Ids, titles, column names and file names come from
other people's files: ``\\x1b[31m`` in a title colours the screen, ``\\r`` overwrites the line, U+202E reverses it.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import html
import json
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn, TextIO

_JOINERS = "\u200c\u200d"
"""Format characters that words and emoji need: they join or part letters and do nothing else."""


_unshown: list[str] = []
"""Why standard output did not take something, for the exit code."""


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


def say(text: str = "", *, err: bool = False, end: str = "\n", flush: bool = False, keep: str = "\n") -> str | None:
    """Print ``shown`` text on standard output, or on standard error. Output that cannot be shown stops nothing.

    Returns
    -------
    str or None
        Why it could not be shown (a full disk, a reader that has gone, a terminal that has closed); None where it was,
        and where the stream was closed from the start: nobody expects anything there.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # `2>&-`; print would write to stdout instead
        return None
    try:
        print(shown(text, stream, keep), end=end, file=stream, flush=flush)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed since
        why: str = getattr(error, "strerror", None) or str(error)
        if not err and not isinstance(error, BrokenPipeError):
            _unshown.append(why)  # a stream that failed to flush once may forget what it held, and flush well again
        return why
    return None


def say_json(value: Any) -> None:
    """Print JSON in plain ASCII: every control and every other character beyond it is a JSON escape."""
    say(json.dumps(value, ensure_ascii=True, indent=2).replace("\x7f", "\\u007f"))


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns for standard output, two spaces apart."""
    cells = [[shown(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in cells if i < len(row)) for i in range(max(map(len, cells)))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def html_table(rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Rows of text as an HTML table, the first as its head; text is escaped, what could steer a terminal too."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(printable(cell))}</{tag}>" for cell in cells) + "</tr>"

    top = f"<caption>{html.escape(printable(caption))}</caption>" if caption else ""
    return f"<table>{top}{row(rows[0], 'th')}{''.join(row(cells, 'td') for cells in rows[1:])}</table>"


class Parser(argparse.ArgumentParser):
    """Prints help and errors, which quote what was typed, by ``say``; abbreviated flags are refused.

    Parameters
    ----------
    brief : sequence of str, optional
        Of the options in groups, the names that ``--help`` lists; ``--help-all`` lists every one.
    """

    def __init__(self, *args: Any, brief: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self._brief = frozenset(brief)
        if brief:
            self.add_argument("--help-all", action=_HelpAll, nargs=0, help="list every option and exit")

    def format_help(self, complete: bool = False) -> str:
        """The help; of a parser with ``brief`` options only these, unless it is to be complete."""
        own = set(self._action_groups[0]._group_actions + self._action_groups[1]._group_actions)
        hidden = [a for a in self._actions if self._brief and not complete and a not in own | _named(self, self._brief)]
        kept = [a.help for a in hidden]
        for action in hidden:
            action.help = argparse.SUPPRESS
        try:
            text = super().format_help()
        finally:
            for action, text_of in zip(hidden, kept):
                action.help = text_of
        more = sum(text_of != argparse.SUPPRESS for text_of in kept)
        return f"{text}\n{more} more options: {self.prog} --help-all\n" if more else text

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; an unknown flag is an error that names the flag meant."""
        found, rest = super().parse_known_args(args, namespace)
        flags = [word.partition("=")[0] for word in rest if word.startswith("--") and word != "--"]
        if flags:
            shown = [a.option_strings for a in self._actions if a.help != argparse.SUPPRESS]
            known = [flag for flags_of in shown for flag in flags_of]
            longer = [flag for flag in known if flag.startswith(flags[0]) and not flag.startswith("--no-")]
            near = longer or difflib.get_close_matches(flags[0], known, 1)
            hint = f"; did you mean {' or '.join(near)}?" if near else f"; `{self.prog} --help` lists what there is"
            self.error(f"unknown option {flags[0]}{hint}")
        return found, rest

    def _print_message(self, message: str, file: Any = None) -> None:
        say(message, err=file is sys.stderr, end="")

    def error(self, message: str) -> NoReturn:
        """End with exit code 2; the message is one line."""
        super().error(printable(message))


def _named(parser: argparse.ArgumentParser, names: frozenset[str]) -> set[argparse.Action]:
    return {action for action in parser._actions if action.dest in names}


class _HelpAll(argparse.Action):
    def __call__(self, parser: Any, *_: Any, **__: Any) -> None:
        say(parser.format_help(complete=True), end="")
        parser.exit()


def joined(argv: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """``--user -x`` as ``--user=-x``: argparse takes a value that starts with a dash for an option.

    Only after options of one text value, and only for what is not an option of ``parser`` or of a command of it.
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


def on_terminal() -> bool:
    """Whether stderr is a terminal that takes output."""
    try:
        if sys.stderr is None or not sys.stderr.isatty():
            return False
        sys.stderr.flush()
    except (OSError, ValueError):
        return False
    return True


def fill_closed() -> None:
    """Put the null device where stdin, stdout or stderr is closed, so that no file of a run gets its number.

    For the command line only: the streams of a process belong to its main program.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def drop_unwritable() -> str | None:
    """Send to the null device what stdout and stderr still hold but cannot write; returns why stdout could not.

    None too where its reader has gone: it has seen enough, as with `| head`. For the command line only: Python flushes
    both when it ends, and exits with 120 where that fails.
    """
    lost = _unshown[0] if _unshown else None
    _unshown.clear()
    for file in (sys.stderr, sys.stdout):
        if file is None:
            continue
        try:
            file.flush()
        except (OSError, ValueError) as error:
            broken = isinstance(error, BrokenPipeError)
            lost = lost if broken or file is sys.stderr else getattr(error, "strerror", None) or str(error)
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, file.fileno())
                os.close(null)
    return lost


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; SIGHUP not where it is ignored (``nohup``)."""

    def end(number: int, _: Any) -> None:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)  # a closing terminal sends SIGHUP twice
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end)
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            before[hangup] = signal.signal(hangup, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
