"""``python docs/status_picture.py PATH/catchment.toml``: writes docs/status.svg, what `status --watch` shows just now.

The picture in the README is of a hub of `catchment demo`, which prints the path.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import CONSOLE_SVG_FORMAT, Console

from catchment.cli.screen import Picture
from catchment.cli.status import gather
from catchment.config import load

WIDTH, HEIGHT = 116, 24


def main(config: Path) -> None:
    console = Console(width=WIDTH, record=True, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(Picture(gather(load(config)), (), HEIGHT))
    # Without fonts from elsewhere: whoever shows the picture loads nothing.
    template = re.sub(r"\s*@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    drawn = console.export_svg(title="catchment status --watch", code_format=template, unique_id="status")
    Path(__file__).with_name("status.svg").write_text(re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
