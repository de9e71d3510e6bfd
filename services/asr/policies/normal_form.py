"""When two words are the same word."""

import unicodedata


def normal_form(text: str) -> str:
    """The word without case, width and punctuation: "Hello," and "hello" are the same.

    A word that is nothing but punctuation stays as it is.
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip()
    return "".join(char for char in folded if char.isalnum()) or folded
