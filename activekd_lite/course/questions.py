"""Multiple-choice questions as plain HTML: each option opens to its explanation.

They need no kernel and no script, so they work in saved pages and with a keyboard.
"""

import html
import re
import textwrap
from collections.abc import Sequence

from activekd_lite.course.fragment import Fragment

CODE = re.compile(r"`([^`]+)`")


def question(text: str, options: Sequence[str], right: int, why: Sequence[str]) -> Fragment:
    """Ask `text`; each of the options opens to say whether it is right, and why.

    options, why: one explanation per option. right: the place of the right option, from 0.
    `code` between backticks and LaTeX between dollar signs are set as in markdown.
    Returns an object that notebooks and saved pages show.
    Raises ValueError if options, explanations and `right` do not fit together.
    """
    _check(options, right, why)
    parts, plain = [f"<p><strong>{_inline(text)}</strong></p>"], [text]
    for place, (option, reason) in enumerate(zip(options, why, strict=True)):
        letter, verdict = chr(ord("A") + place), "✓ Right." if place == right else "✗ No."
        parts.append(
            f'<details style="margin:0.4em 0"><summary style="cursor:pointer">{letter}. '
            f"{_inline(option)}</summary>"
            f'<p style="margin:0.3em 0 0.6em 1.6em"><strong>{verdict}</strong> '
            f"{_inline(reason)}</p></details>"
        )
        plain.append(f"{letter}. {option}")
    body = "".join(parts)
    return Fragment(f'<div role="group" aria-label="Question">{body}</div>', "\n".join(plain))


def _check(options: Sequence[str], right: int, why: Sequence[str]) -> None:
    if not 2 <= len(options) <= 26 or len(set(options)) < len(options):
        raise ValueError(f"a question needs 2 to 26 different options; got {list(options)}")
    if len(why) != len(options):
        raise ValueError(f"each of the {len(options)} options needs a reason; got {len(why)}")
    if isinstance(right, bool) or right not in range(len(options)):
        raise ValueError(f"right = {right!r} is no option; allowed are 0 to {len(options) - 1}")
    if empty := [option for option, reason in zip(options, why, strict=True) if not reason.strip()]:
        raise ValueError(f"no reason for {textwrap.shorten(', '.join(empty), 80)}")


def _inline(text: str) -> str:
    """Escape text for HTML; `code` becomes <code>."""
    return CODE.sub(r"<code>\1</code>", html.escape(text, quote=False))
