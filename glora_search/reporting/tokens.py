"""How tokens look: their order, a short form for narrow cells, and a colour.

The colours keep their meaning for colour-blind readers: the hues are Okabe and Ito's, ranks differ
in lightness, and wherever a colour stands the short form stands too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from search_spaces import rank_of

_PLAIN: Final = ("none", "constant", "vector")
_SHORT: Final = {"none": "–", "constant": "const", "vector": "vec"}  # noqa: RUF001, a dash for nothing
_COLOURS: Final = {"none": "#EEF0F2", "constant": "#F3EA8C", "vector": "#56B4E9"}
_RAMP: Final = ((247, 196, 140), (213, 94, 0), (128, 48, 0))  # low ranks light, high ranks dark


def in_order(tokens: Iterable[str]) -> tuple[str, ...]:
    """The tokens without repeats, from none over constant and vector to the highest rank."""
    return tuple(sorted(set(tokens), key=_place))


def short_form(token: str) -> str:
    """`lora_4` as `r4`, `vector` as `vec`, `constant` as `const`, `none` as a dash."""
    rank = rank_of(token)
    return f"r{rank}" if rank else _SHORT.get(token, token)


def colours(tokens: Iterable[str]) -> dict[str, str]:
    """A colour for each token, in the order of `in_order`; ranks share one ramp of lightness."""
    ordered = in_order(tokens)
    ranked = [token for token in ordered if rank_of(token)]
    ramp = {token: _on_ramp(k, len(ranked)) for k, token in enumerate(ranked)}
    return {token: ramp.get(token) or _COLOURS[token] for token in ordered}


def text_colour(background: str) -> str:
    """Black or white, whichever stands out more from a colour given as `#RRGGBB`.

    By the contrast of the Web Content Accessibility Guidelines, which is at least 4.5 to 1 then.
    """
    parts = [int(background[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    luminance = sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "#FFFFFF" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _place(token: str) -> tuple[int, int]:
    return (len(_PLAIN), rank_of(token)) if rank_of(token) else (_PLAIN.index(token), 0)


def _on_ramp(k: int, n: int) -> str:
    """The colour of the k-th of n ranks; one or two do without the dark end of the ramp."""
    along = (2 if n > 2 else 1) * k / (n - 1) if n > 1 else 1.0
    low = min(int(along), 1)
    mixed = (a + (b - a) * (along - low) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return "#" + "".join(f"{round(part):02X}" for part in mixed)
