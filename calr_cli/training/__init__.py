"""Memory, losses, epochs and checkpoints."""

from calr_cli.training.memory import ClusterMemory

__all__ = ["ClusterMemory"]
