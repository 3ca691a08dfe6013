"""Reasons of recommended items for a person."""

WORDS = {
    "again": "you come back to it about now",
    "followed": "it often follows what you chose",
    "similar": "it is close to what you chose",
    "rising": "it is chosen more often than usual",
    "popular": "many choose it",
    "new": "it is new",
}
"""The kinds of `Recommended.why`. A newer worker may know more."""


def in_words(why: str) -> str:
    """The kind of a reason in words; empty if there is none."""
    return WORDS.get(why, why)
