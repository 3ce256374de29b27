"""Land cover for the cascade out of a prompt: the IGBP class whose name is nearest in meaning."""

from __future__ import annotations

import re
from functools import cache

from torch import Tensor

from terraloom.data.uses import UNKNOWN_COVER
from terraloom.models.text_encoder import WIDTH, SentenceEncoder

# IGBP class -> words for it. The cascade saw whole images of one class, e.g. every river as water.
WORDS: dict[int, tuple[str, ...]] = {
    0: ("water", "open sea", "a lake", "a river", "a coast", "a beach"),
    1: ("evergreen conifer forest",),
    2: ("tropical rain forest",),
    3: ("larch forest",),
    4: ("deciduous broadleaf forest",),
    5: ("forest", "woodland and trees"),
    7: ("shrubland", "chaparral"),
    8: ("woody savanna",),
    9: ("savanna",),
    10: ("grassland", "pasture and meadows"),
    11: ("wetland", "swamp and marsh"),
    12: ("cropland", "farmland fields", "orchards and vineyards"),
    13: (
        "city",
        "residential houses",
        "industrial buildings",
        "highway and roads",
        "airport runway",
        "harbor with boats",
        "parking lot",
    ),
    14: ("cropland and natural vegetation mosaic",),
    15: ("snow and ice", "glacier"),
    16: ("desert", "barren rock", "mountains"),
}
OPENING = re.compile(
    r"^\W*(an? )?((satellite|aerial) )?(image|photo|picture|view)( of)?\b", re.IGNORECASE
)
LEAST = 0.5  # cosine similarity below which the class is unknown


def cover_of(prompt: str) -> int:
    """IGBP class 0..16 that a prompt speaks of, 18 (unknown) when none is near."""
    words = OPENING.sub("", prompt).strip()
    if not words:
        return UNKNOWN_COVER
    classes, names = _names()
    _, pooled = SentenceEncoder().encode([words])
    similarity, nearest = (names @ pooled[0] / WIDTH).max(0)
    return classes[int(nearest)] if similarity >= LEAST else UNKNOWN_COVER


@cache
def _names() -> tuple[list[int], Tensor]:
    """Class of each word, and the words' vectors (n, 384)."""
    pairs = [(c, word) for c, words in WORDS.items() for word in words]
    _, pooled = SentenceEncoder().encode([word for _, word in pairs])
    return [c for c, _ in pairs], pooled
