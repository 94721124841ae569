"""Talks to a policy.

  python experiments/chat.py --init_from=runs/quickstart
  echo '3^17 mod 41' | python experiments/chat.py --init_from=runs/quickstart
  python experiments/chat.py --model=smollm2-135m
  python experiments/chat.py --model=smollm2-135m --environment=tool_math

Of a run it is given tasks, a line each, and acts in the run's own environment,
so a tool call is answered for real. So does a published model in the
environment that --environment names; named by --model alone it just answers,
line by line. With --temperature above 0 the policy samples; by default it is
greedy.
"""

from collections.abc import Iterator
import pathlib
import sys
from typing import Any

from absl import flags
import rich.console

from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.models import pretrained
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from experiments import common
from experiments import inspecting
from experiments import policies
from experiments import run_config
from experiments import worlds

FLAGS = flags.FLAGS

flags.DEFINE_float('temperature', 0.0, 'Of sampling; 0 is greedy.', 0.0)

# Of a conversation; --limit goes before them.
_LIMITS = rollout.Limits(action_tokens=256, segment_tokens=1024)


class Conversation:
  """What was said in one slot: ids in, ids out.

  Attributes:
    ids: all that the slot holds, the policy's own tokens as it sampled them.
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    words: tokenizer.Tokenizer,
    *,
    temperature: float,
    limit_tokens: int,
  ) -> None:
    """Begins with nothing said.

    Args:
      sampler: with parameters loaded.
      words: the policy's tokenizer.
      temperature: of sampling.
      limit_tokens: of a reply.
    """
    self.sampler, self.words = sampler, words
    self.ids: list[int] = []
    self._temperature, self._limit = temperature, limit_tokens
    self._turn = 0

  def reply(self, text: str) -> str:
    """What the policy answers; begins anew when the slot is full."""
    closed = self.ids[-1:] == [self.words.eos_id]
    ids = self.words.observation(text, closed=closed)
    room = self.sampler.limit_tokens - len(self.ids) - len(ids) - self._limit
    settings: dict[str, Any] = dict(turn=self._turn, limit_tokens=self._limit)
    if self.ids and room >= 0:
      self.sampler.extend(0, ids, **settings)
    else:
      ids, self.ids = self.words.prompt(text), []
      settings |= dict(draw=0, member=0, temperature=self._temperature)
      self.sampler.open(0, ids, **settings)
    found: list[sampler_lib.Generated] = []
    while not found:
      found = self.sampler.tick()
    said = found[0].tokens.tolist()
    self._turn += 1
    self.ids += [*ids, *said]
    return self.words.decode(said[:-1] if found[0].stopped else said)


def _find() -> pretrained.Published:
  """The published model of --model.

  Raises:
    ValueError: it is not published.
  """
  published = policies.find(FLAGS.model)
  if published is None:
    raise ValueError(
      f'--model={FLAGS.model!r} is a size, and a fresh model has nothing to '
      'say. Name a run by --init_from, or a published model, such as '
      f'--model={min(pretrained.PACKAGED)}.'
    )
  return published


def converse() -> Conversation:
  """A conversation with the published model of --model.

  Raises:
    ValueError: it is not published.
  """
  published = _find()
  bounds = worlds.limits(FLAGS.limit, _LIMITS)
  words = policies.tokenizer_of(FLAGS.tokenizer, published, ())
  config = policies.configure(
    FLAGS.model,
    published,
    words,
    positions=bounds.segment_tokens,
    dtype=FLAGS.dtype,
  )
  policies.refuse_untrained(FLAGS.model, published, config)
  params = pretrained.load(published, config, sharding.make_mesh(FLAGS.mesh))
  print('Loaded; compiling, which is done once ...', file=sys.stderr)
  sampler = sampler_lib.Sampler(
    config,
    programs.shape_for(bounds.segment_tokens, 1),
    stop_ids=words.stop_ids(()),
    seed=FLAGS.seed,
  )
  sampler.load(params, 0)
  return Conversation(
    sampler,
    words,
    temperature=FLAGS.temperature,
    limit_tokens=bounds.action_tokens,
  )


def _lines(invitation: str) -> Iterator[str]:
  """The lines of the terminal, until an empty one."""
  interactive = sys.stdin.isatty()
  while True:
    if interactive:
      print(invitation, end='', flush=True)
    line = sys.stdin.readline().strip()
    if not line:
      return
    yield line


def _talk(console: rich.console.Console) -> None:
  print(f'Loading {FLAGS.model} ...', file=sys.stderr)
  conversation = converse()
  print('Say something; an empty line ends.', file=sys.stderr)
  for line in _lines('> '):
    console.print(conversation.reply(line), markup=False, highlight=False)


def _play(console: rich.console.Console, run: common.Run, params: Any) -> None:
  """Plays tasks in the environment."""
  if told := worlds.telling(run.world):
    print(told, file=sys.stderr)
  run.sampler.load(params, 0)
  for draw, line in enumerate(_lines('A task, such as 3^17 mod 41: ')):
    (episode,) = rollout.collect(
      run.sampler,
      run.world,
      [rollout.Request(draw, types.Task(draw, line), 0)],
      temperature=FLAGS.temperature,
      workers=run.workers,
    )
    inspecting.show(console, run.world.tokenizer, episode)


def main() -> None:
  """Reads lines from the terminal and answers them."""
  console = rich.console.Console()
  if FLAGS.init_from or not FLAGS['model'].present:
    workdir = pathlib.Path(FLAGS.init_from or 'runs/quickstart')
    run = common.build(base_limits=run_config.restore_flags(workdir))
    _play(console, run, policies.of_run(str(workdir), run.config))
  elif FLAGS['environment'].present:
    _find()
    run = common.build(base_limits=_LIMITS)
    _play(console, run, common.initial_state(run).policy)
  else:
    _talk(console)


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
