"""Who speaks when, live.

In: audio of one lane. Out: turns, numbered by speaker, about a second later; what a replica has
learnt of the voices travels in checkpoints, so that numbers keep their meaning when another one
goes on.
"""
