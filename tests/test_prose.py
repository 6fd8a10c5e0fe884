"""Plain English: comments, docstrings, messages and pages use the field's terms, not this project's former dialect."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

MOST_EXCEPTIONS = 25

UNITS = "B|bytes?|floats?|numbers|words|bits|reads|draws|tables|rows|columns|samples|ns|us|ms|s|seconds|losses|threads"
THINGS = "interaction|sample|positive|user|item|row|step|batch|epoch|draw|pair|block|layer|table|id|thread"

DIALECT = {
    "alone": r"\balone\b",
    "stand": r"\bstands?\b(?!-)",
    "lie": r"\blies?\b",
    "beside": r"\bbesides?\b",
    "anew": r"\banew\b",
    "met": r"\bmet\b",
    "said": r"\bsaid\b|\bsays? of\b|\bsaid of\b|\baloud\b",
    "bring": r"\bbrings?\b|\bbrought\b",
    "mend": r"\bmend(?:s|ed|ing)?\b",
    "share": r"\b(?:a|the|its|of|each|no) shares?\b|\bshares? of\b|\bshares? out\b",
    "is no": r"\b(?<!there )(?:is|are) no (?!longer|more|better|worse|slower|faster)\w+",
    "has not": r"\b(?:has|have) not\b(?=[.,:;)]|$)",
    "per": rf"\b(?:{UNITS}) an? (?:{THINGS})s?\b",
    "in vain": r"\bin vain\b",
    "cannot be had": r"\bbe had\b",
    "whole": r"\bwhole\b",
    "by hand": r"\bby hand\b",
    "bear": r"\bbears?\b",
    "tower": r"\btowers?\b",
    "rival": r"\brivals?\b|\bcontenders?\b",
}
"""Name -> pattern of words that nobody in this field writes in this sense."""

ALLOWED = {
    ("CHANGELOG.md", "`FASTREC_RIVALS` and `make bench-rivals` are now"): "the former names, which the message refuses",
    ("fastrec/bench/context.py", '"said"'): "a key of recorded runs",
    ("fastrec/bench/record.py", '"rival"'): "a role in recorded runs",
}
"""(file, part of the line) -> why the word is right there."""


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of what people read: all of a page; comments and strings of a module."""
    source = path.read_text("utf-8")
    if path.suffix != ".py":
        yield from enumerate(source.splitlines(), 1)
        return
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in kinds:
            code = token.type == tokenize.STRING and "f" in token.string[:2].lower().partition('"')[0]
            text = (
                re.sub(r"\{[^{}]*\}", "{}", token.string) if code else token.string
            )  # names inside an f-string are code
            yield from enumerate(text.splitlines(), token.start[0])


def pages() -> list[Path]:
    folders = [p for name in ("fastrec", "scripts", "benchmarks") for p in (ROOT / name).rglob("*.py")]
    written = [*(ROOT / "benchmarks").glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "scripts").glob("*.sh")]
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")]
    return sorted({*folders, *written, *named, *(ROOT / "fastrec" / "presets").glob("*.toml")})


def hits() -> list[tuple[str, int, str, str]]:
    """(file, line number, word, line) of each use of the dialect."""
    patterns = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in DIALECT.items()}
    return [
        (path.relative_to(ROOT).as_posix(), number, name, line.strip())
        for path in pages()
        for number, line in texts(path)
        for name, pattern in patterns.items()
        for _ in pattern.finditer(line)
    ]


def test_prose_is_the_fields() -> None:
    found = hits()
    allowed = {key: [h for h in found if h[0] == key[0] and key[1] in h[3]] for key in ALLOWED}
    unused = [key for key, uses in allowed.items() if not uses]
    assert not unused, f"exceptions without a use; take them out: {unused}"
    assert sum(map(len, allowed.values())) <= MOST_EXCEPTIONS
    excused = {hit for uses in allowed.values() for hit in uses}
    left = [f"{file}:{number}: {word}: {line}" for file, number, word, line in sorted(set(found) - excused)]
    assert not left, f"{len(left)} uses of words that the field does not write so:\n" + "\n".join(left)
