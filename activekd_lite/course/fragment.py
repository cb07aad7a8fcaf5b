"""A piece of HTML that a notebook shows, with its text for screens that show none."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fragment:
    """HTML without scripts or styles of its own, and the same as plain text."""

    html: str
    text: str

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": self.text}

    def _repr_html_(self) -> str:
        return self.html
