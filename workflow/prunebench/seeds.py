"""Seeds derived from what an experiment is, so that every criterion sees the same data in the same order."""

from __future__ import annotations

import hashlib


def derive(seed: int, *identity: str | int) -> int:
    """A seed in [0, 2**63) from the suite's seed and the words that say what the randomness is for."""
    digest = hashlib.sha256("/".join(map(str, (seed, *identity))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
