"""Published checkpoints, in and out."""

from agentic_jax.models.pretrained.adapters import export_adapter
from agentic_jax.models.pretrained.adapters import load_adapter
from agentic_jax.models.pretrained.adapters import merged
from agentic_jax.models.pretrained.adapters import read_lora
from agentic_jax.models.pretrained.families import FAMILIES
from agentic_jax.models.pretrained.published import PACKAGED
from agentic_jax.models.pretrained.published import Published
from agentic_jax.models.pretrained.published import beside
from agentic_jax.models.pretrained.published import configure
from agentic_jax.models.pretrained.published import digest
from agentic_jax.models.pretrained.published import find
from agentic_jax.models.pretrained.published import load
from agentic_jax.models.pretrained.published import lora_of
from agentic_jax.models.pretrained.saving import export

__all__ = [
  'FAMILIES',
  'PACKAGED',
  'Published',
  'beside',
  'configure',
  'digest',
  'export',
  'export_adapter',
  'find',
  'load',
  'load_adapter',
  'lora_of',
  'merged',
  'read_lora',
]
