"""The sampler of a run: with slots as --slots says, or as --memory holds."""

import sys
from typing import NamedTuple

from absl import flags
import jax

from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax.models import config as config_lib
from agentic_jax.sampling import budget
from agentic_jax.sampling import controls
from agentic_jax.sampling import grammars
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import speculation as speculation_lib
from experiments import drafts
from experiments import worlds

FLAGS = flags.FLAGS


class Admitted(NamedTuple):
  """Sizes of a sampler."""

  shape: programs.Shape
  limit_parked: int


def admit(
  config: config_lib.TransformerConfig,
  limits: rollout.Limits,
  most_slots: int,
  speculation: speculation_lib.Speculation | None = None,
  *,
  parks: bool = True,
) -> Admitted:
  """The slots of a run; with --memory, says on stderr how it is spent.

  Args:
    config: the transformer.
    limits: how long segments are, and how many images they have.
    most_slots: that there is use for.
    speculation: who drafts, if anybody does.
    parks: whether room is kept for segments that leave their slots.

  Raises:
    ValueError: --memory does not hold them.
  """
  shape = programs.shape_for(
    limits.segment_tokens, FLAGS.slots, segment_images=limits.segment_images
  )
  if not FLAGS.memory:
    return Admitted(shape, FLAGS.slots)
  found = budget.admit(
    config,
    shape,
    budget.parse(FLAGS.memory),
    most=most_slots,
    asked=FLAGS.slots if FLAGS['slots'].present else None,
    speculation=speculation,
    parks=parks,
  )
  FLAGS['slots'].value = found.slots  # Which config.json keeps.
  said = budget.describe(config, shape, found)
  longest = budget.longest_segments(config, shape, found)
  print(
    f'--memory={FLAGS.memory} holds {said}. So many hold segments of up to '
    f'--limit=segment_tokens={longest}.',
    file=sys.stderr,
    flush=True,
  )
  shape = programs.shape_for(
    limits.segment_tokens, found.slots, segment_images=limits.segment_images
  )
  return Admitted(shape, found.parked)


def sampler(
  config: config_lib.TransformerConfig,
  world: rollout.World,
  sampling: recipe_lib.Sampling,
  mesh: jax.sharding.Mesh,
  record: bool,
  most_slots: int,
) -> sampler_lib.Sampler:
  """The sampler of a run, as its flags say.

  Args:
    config: the transformer.
    world: its tokenizer, grammar and limits count.
    sampling: of the recipe.
    mesh: of the run, for a draft of another model.
    record: whether what might have been sampled is recorded.
    most_slots: that there is use for.

  Raises:
    ValueError: --memory, --speculate or a grammar does not fit.
  """
  words = world.tokenizer
  drafting = drafts.load(FLAGS.speculate, world.limits.segment_tokens, mesh)
  admitted = admit(config, world.limits, most_slots, drafting)
  return sampler_lib.Sampler(
    config,
    admitted.shape,
    limit_parked=admitted.limit_parked,
    stop_ids=words.stop_ids(world.grammar.stop_strings),
    seed=FLAGS.seed,
    find_stop=worlds.find_stop(world),
    controls=controls.resolve(
      sampling,
      words,
      grammar=grammars.load(sampling, world.grammar, words, config.vocab_size),
      record=record,
    ),
    speculation=drafting,
  )
