"""The mesh: five services that know nothing of one another, and what they share.

* ``common``      errors, server life, channels, settings, telemetry, audio: knows no service
* ``vad``         audio -> where somebody speaks
* ``asr``         speech -> words
* ``gateway``     clients -> sessions; the only one that knows the others, through their contracts
* ``cli``         the ``voxmesh`` command: a client, and the supervisor of a mesh on one machine

A service never imports another. In each, layers point one way:
``__main__ -> servicer -> domain -> common``; domain modules know no gRPC, no asyncio and no clock.
"""
