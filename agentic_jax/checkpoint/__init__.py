"""Saves and restores everything a restart needs."""

from agentic_jax.checkpoint.saving import Checkpoints
from agentic_jax.checkpoint.saving import CorruptError
from agentic_jax.checkpoint.saving import Restored

__all__ = ('Checkpoints', 'CorruptError', 'Restored')
