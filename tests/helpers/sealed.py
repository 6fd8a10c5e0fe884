"""Safetensors files under a damaged header, as a hostile writer would make them."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def resealed(header: Any, body: bytes, *, sealed: bool = True) -> bytes:
    """A safetensors file of a header and a body; ``sealed`` with a checksum that fits, where the header has one."""
    meta = header.get("__metadata__") if isinstance(header, dict) else None
    sealed = sealed and isinstance(meta, dict) and "checksum" in meta
    if sealed:
        meta["checksum"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    if sealed:
        digests = b""
        try:
            entries = sorted(tuple(v["data_offsets"]) for k, v in header.items() if k != "__metadata__")
            digests = b"".join(hashlib.sha256(body[a:b]).digest() for a, b in entries if a != b)
        except (TypeError, KeyError, ValueError):
            pass  # no checksum fits such a header
        digest = hashlib.sha256(head + digests).hexdigest()
        head = head.replace(b'"checksum":"' + b"0" * 64, b'"checksum":"' + digest.encode())
    return head + body
