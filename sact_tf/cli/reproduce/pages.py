"""Pages of results, from what is known of the runs."""

import pathlib
from collections.abc import Sequence

from matplotlib.figure import Figure

from sact_tf import visualization


class Page:
    """A page of Markdown that grows; pictures are beside it."""

    def __init__(self, path: pathlib.Path, title: str):
        """Begins it.

        Args:
          path: of the page, ending in .md.
          title: its first line.
        """
        self._path = pathlib.Path(path)
        self._parts = [f"# {title}"]

    def text(self, text: str) -> None:
        """A paragraph."""
        self._parts.append(_wrapped(text))

    def heading(self, text: str) -> None:
        """A section begins."""
        self._parts.append(f"## {text}")

    def table(self, names: Sequence[str], rows: Sequence[Sequence]) -> None:
        """A table, if it has rows."""
        if rows:
            lines = [names, ["---"] * len(names), *rows]
            self._parts.append(
                "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
            )

    def picture(self, name: str, figure: Figure, caption: str) -> None:
        """A picture, written at once."""
        path = self._path.with_name(f"{self._path.stem}_{name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        visualization.save(figure, path)
        self._parts.append(f"![{caption}]({path.name})")

    def runs(self, known: dict[str, dict]) -> None:
        """How each run came about."""
        self.heading("Runs")
        self.table(
            ("run", "minutes", "date", "machine"),
            [
                (name, f"{one['seconds'] / 60:.0f}", one["date"], one["machine"])
                for name, one in known.items()
            ],
        )

    def write(self) -> None:
        """Writes the page."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("\n\n".join(self._parts) + "\n", encoding="utf-8")


def _wrapped(text, width=88):
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) + 1 > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
