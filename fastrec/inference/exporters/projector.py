"""Item vectors for TensorBoard's embedding projector, with transliterated titles and genres to colour and search by.

I items, D dim.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastrec.files import atomic_folder
from fastrec.inference.exporters.parts.base import Content, Exporter, register
from fastrec.inference.weights import Weights
from fastrec.runs import Run

CONFIG = """embeddings {
  tensor_name: "items"
  tensor_path: "vectors.tsv"
  metadata_path: "metadata.tsv"
}
"""


def write(path: Path, content: Content) -> None:
    """``vectors.tsv``, ``metadata.tsv`` and ``projector_config.pbtxt``: ``tensorboard --logdir PATH`` shows them.

    Items of models without vectors are their embeddings. Metadata has ``title`` in ASCII, ``id``, ``year`` and
    ``genres`` where the run keeps them, and ``interactions`` in train.
    """
    run, split = content.run, content.run.split()
    vectors = Weights(run, split).item_table
    rows = metadata(run, split.train)
    with atomic_folder(path) as folder:
        with (folder / "vectors.tsv").open("wb") as file:
            np.savetxt(file, vectors, fmt="%.7g", delimiter="\t")
        lines = ["\t".join(row) for row in rows]
        (folder / "metadata.tsv").write_text("\n".join(lines) + "\n", "ascii")
        (folder / "projector_config.pbtxt").write_text(CONFIG)


def metadata(run: Run, train: Any) -> list[list[str]]:
    """A header and one row an item, each cell a line of ASCII without tabs."""
    from fastrec.data.lists import aligned

    table = aligned(run.catalog().movies, "item", train.item_ids, train.titles)
    fields = [name for name in ("year", "genres") if name in table.columns]
    titles = train.item_ids if train.titles is None else train.titles
    counts = train.item_counts().tolist()
    rows = [["title", "id", *fields, "interactions"]]
    for k, facts in enumerate(table.select(fields).rows() if fields else [()] * train.n_items):
        told = ["" if v is None else "|".join(map(str, v)) if isinstance(v, list) else str(v) for v in facts]
        ident = plain(str(train.item_ids[k]))
        rows.append([plain(str(titles[k])) or ident, ident, *map(plain, told), str(counts[k])])
    return rows


def plain(text: str) -> str:
    """Text transliterated to printable ASCII; tabs, line ends and other controls become spaces."""
    from unidecode import unidecode

    ascii_text = text if text.isascii() else unidecode(text)
    return " ".join("".join(c if " " <= c <= "~" else " " for c in ascii_text).split())


PROJECTOR = register(Exporter("projector", write, takes_options=False))
