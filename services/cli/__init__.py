"""The ``voxmesh`` command: runs the mesh on one machine, fetches models, shows captions.

A client like any other: it imports no service, starts them as ``python -m services.<name>`` and
speaks to them over their public protocols.
"""
