"""Published checkpoints, in and out."""

from agentic_jax.models.pretrained.families import FAMILIES
from agentic_jax.models.pretrained.saving import export

__all__ = ['FAMILIES', 'export']
