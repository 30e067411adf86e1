"""What a test asks of a page of HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Seen(HTMLParser):
    """All that a page holds: elements, ids, what attributes point to, and text."""

    tags: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.tags.append(f"{tag}@{name}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        """All text, its white space as one space each."""
        return " ".join(" ".join(self.texts).split())


def seen(page: str) -> Seen:
    """What is in a page."""
    parser = Seen()
    parser.feed(page)
    parser.close()
    return parser
