"""What voxmesh measures of itself. Run from the project's root: ``python -m bench.latency``."""
