"""What makes a live word certain."""

from enum import Enum


class Policy(Enum):
    """Which of the rules in this folder commit a word before a pause does."""

    LOCAL_AGREEMENT = "local-agreement"
    ALIGN_ATT = "align-att"
    EITHER = "either"
