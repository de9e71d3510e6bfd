"""The translator service: words as they are spoken -> text in another language, live.

In: source words for good, and the tail that may change. Out: target text for good, in pieces that
say which words they translate, and a tail of its own.
"""
