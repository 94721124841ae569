"""The one loop, and the pure step that it compiles."""

from agentic_jax.train.beginning import begin_with
from agentic_jax.train.beginning import init_state
from agentic_jax.train.beginning import place_teacher
from agentic_jax.train.compiled import compile_programs
from agentic_jax.train.directory import digests
from agentic_jax.train.directory import frozen_of
from agentic_jax.train.directory import git_commit
from agentic_jax.train.directory import load_params
from agentic_jax.train.directory import lora_of
from agentic_jax.train.directory import open_run
from agentic_jax.train.host_memory import keep_freed_memory
from agentic_jax.train.loop import Evaluate
from agentic_jax.train.loop import Plan
from agentic_jax.train.loop import Result
from agentic_jax.train.loop import Source
from agentic_jax.train.loop import run
from agentic_jax.train.probing import probed
from agentic_jax.train.records import write as write_episodes
from agentic_jax.train.rescoring import rescore
from agentic_jax.train.signals import Stopped
from agentic_jax.train.step import TrainState
from agentic_jax.train.step import apply_of
from agentic_jax.train.versions import parse as parse_swap
from agentic_jax.train.versions import schedule_of

__all__ = [
  'Evaluate',
  'Plan',
  'Result',
  'Source',
  'Stopped',
  'TrainState',
  'compile_programs',
  'apply_of',
  'begin_with',
  'digests',
  'frozen_of',
  'git_commit',
  'init_state',
  'keep_freed_memory',
  'load_params',
  'lora_of',
  'open_run',
  'parse_swap',
  'place_teacher',
  'probed',
  'rescore',
  'run',
  'schedule_of',
  'write_episodes',
]
