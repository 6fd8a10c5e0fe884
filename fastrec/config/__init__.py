"""Options of a run: frozen sections, TOML files, presets, and the table of what each option needs."""

from fastrec.config.config import OPTIONS, SECTION_OF, SECTIONS, TYPES, Config, unknown
from fastrec.config.files import (
    default_rules,
    defaulted,
    parse_toml,
    preset,
    presets,
    read_toml,
    recorded,
    restored,
    with_defaults,
)
from fastrec.config.names import COLUMNS, RENAMED, UPDATABLE, UPDATE_EPOCHS
from fastrec.config.typed import Options, TrainOptions

__all__ = [
    "COLUMNS",
    "OPTIONS",
    "RENAMED",
    "SECTIONS",
    "SECTION_OF",
    "TYPES",
    "UPDATABLE",
    "UPDATE_EPOCHS",
    "Config",
    "Options",
    "TrainOptions",
    "default_rules",
    "defaulted",
    "parse_toml",
    "preset",
    "presets",
    "read_toml",
    "recorded",
    "restored",
    "unknown",
    "with_defaults",
]
