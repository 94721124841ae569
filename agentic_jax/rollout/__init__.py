"""Environments x sampler -> episodes: the event loop, its limits and faults."""

from agentic_jax.rollout.branching import refuse as refuse_branching
from agentic_jax.rollout.branching import turn_fields
from agentic_jax.rollout.collecting import collect
from agentic_jax.rollout.counting import statistics
from agentic_jax.rollout.episodes import Request
from agentic_jax.rollout.episodes import derive_seed
from agentic_jax.rollout.pictures import Images
from agentic_jax.rollout.remote import hosted
from agentic_jax.rollout.remote import parse as parse_workers
from agentic_jax.rollout.replay import refuse as refuse_replay
from agentic_jax.rollout.replay import states
from agentic_jax.rollout.restarting import refuse as refuse_restarts
from agentic_jax.rollout.scripted import TooLongError
from agentic_jax.rollout.scripted import play
from agentic_jax.rollout.source import Batch
from agentic_jax.rollout.source import Demonstrations
from agentic_jax.rollout.source import Rollouts
from agentic_jax.rollout.swapping import Schedule
from agentic_jax.rollout.swapping import Swaps
from agentic_jax.rollout.workers import Workers
from agentic_jax.rollout.world import Limits
from agentic_jax.rollout.world import World

__all__ = [
  'Batch',
  'Demonstrations',
  'Images',
  'Limits',
  'Request',
  'Rollouts',
  'Schedule',
  'Swaps',
  'TooLongError',
  'Workers',
  'World',
  'collect',
  'derive_seed',
  'hosted',
  'parse_workers',
  'play',
  'refuse_branching',
  'refuse_replay',
  'refuse_restarts',
  'states',
  'statistics',
  'turn_fields',
]
