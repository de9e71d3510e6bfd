"""Where in a stream of audio somebody speaks.

In: 16 kHz audio of one lane, cut anywhere. Out: starts and ends of speech as sample positions, and
how far the audio has been heard. Latency: one window (32 ms) to hear, ``min_speech`` to announce a
start, ``hangover`` to announce an end.
"""
