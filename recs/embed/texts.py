"""What exactly is embedded of a text, and the key under which its vector is kept."""

from __future__ import annotations

import hashlib
import re
import unicodedata

_BLANK = re.compile(r"\s+")


def normalise_text(text: str, max_chars: int) -> str:
    """Return the text as the encoder sees it: NFKC, control characters out, white space collapsed, cut to length.

    Two texts that a reader cannot tell apart become one. Returns an empty string where nothing is left.
    """
    folded = unicodedata.normalize("NFKC", text[:max_chars])
    if not folded.isascii():
        # Zero-width characters and direction marks (category Cf) change nothing that a reader sees, but the joiner
        # U+200D holds emoji together.
        folded = "".join(
            c for c in folded if c == "\u200d" or unicodedata.category(c) not in ("Cc", "Cf") or c.isspace()
        )
    else:
        folded = "".join(c for c in folded if c.isprintable() or c.isspace())
    return _BLANK.sub(" ", folded).strip()


def text_key(normalised: str) -> str:
    """Return the key of a normalised text: the same text has the same key, whoever said it."""
    return hashlib.sha256(normalised.encode()).hexdigest()
