"""Speech in, words out: committed words that never change, and a tail that may.

A stream's audio gathers in a short window. Whenever there is enough of it, the scheduler decodes
the windows of many streams in one batch; the policy says which words of the new hypothesis are
certain; those are committed with a checkpoint, and audio leaves the window behind them. Latency:
one step (about a second of audio) plus one decoding, or the decoding alone where speech pauses.
"""
