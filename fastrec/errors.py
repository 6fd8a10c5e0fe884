"""Every error that fastrec raises on purpose. A message says what, the value, where, and what to do."""


class FastrecError(Exception):
    """The base of all of them: ``except FastrecError`` catches what fastrec itself refuses."""

    def __str__(self) -> str:
        said = super().__str__()
        if said.isprintable():
            return said
        # names from a file must not steer a terminal: all but line ends is shown escaped
        return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in said)


class DataError(FastrecError, ValueError):
    """Data that cannot be used as it is: a malformed file, an inconsistent CSR, an unknown id."""


class DataNotFoundError(DataError):
    """A named data set that is neither on this machine nor to be fetched now; the message says how to get it."""


class ConfigError(FastrecError, ValueError):
    """An option, argument or combination of them that cannot be honoured."""


class CheckpointError(FastrecError):
    """A run folder or checkpoint that is damaged, incomplete, or belongs to another run."""


class MissingPackageError(FastrecError, ImportError):
    """An optional package that is not installed; the message gives the install line."""


EXTRAS = {
    "train": ("torch", "polars", "safetensors", "tensorboard", "unidecode", "tomli_w", "tqdm", "zstandard"),
    "report": ("matplotlib",),
    "onnx": ("onnx",),
    "ann": ("usearch",),
    "completion": ("shtab",),
}
"""The packages of each extra of ``pip install 'fastrec[EXTRA]'``, by import name; ``pyproject.toml`` lists the same."""


def not_installed(package: str | None) -> str:
    """One line for a package that cannot be imported: what is missing, and how to install it."""
    root = (package or "a package").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if root in packages:
            return f"{root} is not installed: pip install 'fastrec[{extra}]'"
    return f"{root} is not installed; `fastrec doctor` shows what was found"


def shown(value: object, limit: int = 80) -> str:
    """``repr`` for a message, cut to ``limit`` characters; also where Python refuses to print the value."""
    if isinstance(value, str):  # cut inside its quotes, and before a long text is escaped
        return repr(value if len(value) <= limit else f"{value[: limit - 3]}...")
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more than 4,300 digits; nested too deeply
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
