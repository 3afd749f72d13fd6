"""A hook of mkdocs: links that leave docs/ are for readers of the repository.

On the site there is nothing behind them; the words stay.
"""

import posixpath
import re

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s:#]+)\)")


def on_page_markdown(markdown: str, page, **_) -> str:
    """Takes such links out of a page."""
    folder = posixpath.dirname(page.file.src_uri)

    def without(match):
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        return match[1] if target.startswith("..") else match[0]

    return _LINK.sub(without, markdown)
