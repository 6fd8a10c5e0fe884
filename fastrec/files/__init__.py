"""Files: the only writer (atomic, synced), and the only reader of what fastrec wrote (checked before use)."""

from fastrec.files.atomic import (
    atomic_folder,
    atomic_write,
    make_folder,
    reason,
    remove,
    sha256_file,
    sweep,
    sync_folder,
    write_bytes,
)
from fastrec.files.checked import COUNT, SHA256, expect, parse_json
from fastrec.files.tensors import FileArray, load_tensors, map_safetensors, write_tensors

__all__ = [
    "COUNT",
    "SHA256",
    "FileArray",
    "atomic_folder",
    "atomic_write",
    "expect",
    "load_tensors",
    "make_folder",
    "map_safetensors",
    "parse_json",
    "reason",
    "remove",
    "sha256_file",
    "sweep",
    "sync_folder",
    "write_bytes",
    "write_tensors",
]
