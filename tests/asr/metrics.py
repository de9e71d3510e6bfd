"""What the metrics of this process say."""

from prometheus_client import REGISTRY


def metric(name: str, **labels: str) -> float:
    """A sample by its exported name, without ``voxmesh_``; 0 if there is none yet."""
    return REGISTRY.get_sample_value(f"voxmesh_{name}", labels) or 0.0
