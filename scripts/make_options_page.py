"""Write docs/options.md from the options of Config and the table of what each needs.

python scripts/make_options_page.py            # writes the page
python scripts/make_options_page.py --check    # 1 if the page is not what Config says
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from fastrec.config import SECTIONS
from fastrec.config.needs import NEEDS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
HEAD = """# Options

Each option is a flag of `fastrec train` (`--batch-size`), a key of a TOML file (`batch_size`, flat or in its
section), and a keyword of `fastrec.train`. Later beats earlier: preset, file, command
line. An option without effect is refused.
`scripts/make_options_page.py` writes this page.
"""


def page() -> str:
    """The page as Markdown."""
    parts = [HEAD]
    for name, section in SECTIONS.items():
        parts.append(f"\n## {name}\n\n| option | default | what it is | needs |\n|---|---|---|---|\n")
        for f in fields(section):
            choices = f.metadata["choices"]
            text = f.metadata["help"] + (f" ({', '.join(choices)})" if choices else "")
            default = "" if f.default is None else f"`{f.default}`"
            needs = "; ".join(need.what for need in NEEDS if f.name in need.options)
            parts.append(f"| `{f.name}` | {default} | {cell(text)} | {cell(needs)} |\n")
    return "".join(parts)


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    """Write the page, or check it."""
    made = page()
    if "--check" in sys.argv[1:]:
        return int(not PAGE.exists() or PAGE.read_text() != made)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    sys.exit(main())
