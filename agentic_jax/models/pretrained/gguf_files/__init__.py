"""GGUF files: metadata as a config.json, tensors by name, the tokenizer."""

from agentic_jax.models.pretrained.gguf_files.header import read
from agentic_jax.models.pretrained.gguf_files.metadata import config_json
from agentic_jax.models.pretrained.gguf_files.tensors import Tensors
from agentic_jax.models.pretrained.gguf_files.vocabulary import source

__all__ = ['Tensors', 'config_json', 'read', 'source']
