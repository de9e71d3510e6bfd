"""Where a new hypothesis goes on after the words that are committed.

A window is decoded afresh each time: forced to go on from its committed words, a model that once
heard a loop would stay in it. So the committed words have to be found again in the hypothesis,
which may spell them otherwise, by the alignment of least edits.

Source: Levenshtein distance; Navarro, "A Guided Tour to Approximate String Matching", 2001.
"""

from collections.abc import Sequence

from services.asr.policies.normal_form import normal_form
from services.common.words import Word


def continuation(committed: Sequence[Word], hypothesis: Sequence[Word]) -> int:
    """Index of the first word of the hypothesis that comes after the committed ones.

    Of several places that need equally few edits, the one nearest in time is taken.

    Args:
        committed: Words committed inside the window, oldest first.
        hypothesis: What the same window says now.

    """
    if not committed:
        return 0
    keys = [normal_form(word.text) for word in hypothesis]
    edits = list(range(len(keys) + 1))
    for row, word in enumerate(committed, start=1):
        wanted, above = normal_form(word.text), edits
        edits = [row]
        for column, key in enumerate(keys, start=1):
            edits.append(
                min(
                    above[column] + 1,
                    edits[column - 1] + 1,
                    above[column - 1] + (wanted != key),
                )
            )
    end = committed[-1].end_sample

    def distance(index: int) -> tuple[int, int]:
        if index:
            border = hypothesis[index - 1].end_sample
        else:
            border = hypothesis[0].first_sample if hypothesis else end
        return edits[index], abs(border - end)

    return min(range(len(keys) + 1), key=distance)
