"""Talks to a policy.

  python experiments/chat.py --init_from=runs/quickstart
  echo '3^17 mod 41' | python experiments/chat.py --init_from=runs/quickstart
  python experiments/chat.py --model=smollm2-135m

Of a run it is given tasks, a line each, and acts in the run's own environment,
so a tool call is answered for real. A published model, named by --model alone,
just answers, line by line. With --temperature above 0 the policy samples; by
default it is greedy.
"""

from collections.abc import Iterator
import pathlib
import sys
import time

from absl import flags
import rich.console

from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import train
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
  """One slot, and what was said in it: ids in, ids out."""

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    words: tokenizer.Tokenizer,
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
    self._sampler, self._words = sampler, words
    self._temperature, self._limit = temperature, limit_tokens
    self._turn = self._length = self._last = 0

  def reply(self, text: str) -> str:
    """What the policy answers; begins anew when the slot is full."""
    ids = self._words.observation(text, closed=self._last == self._words.eos_id)
    room = self._sampler.limit_tokens - self._length - len(ids) - self._limit
    if self._turn and room > 0:
      self._sampler.extend(0, ids, turn=self._turn, limit_tokens=self._limit)
    else:
      ids, self._length = self._words.prompt(text), 0
      self._sampler.open(
        0,
        ids,
        draw=0,
        member=0,
        turn=self._turn,
        temperature=self._temperature,
        limit_tokens=self._limit,
      )
    found: list[sampler_lib.Generated] = []
    while not found:
      found = self._sampler.tick()
    said = found[0].tokens.tolist()
    self._turn += 1
    self._length += len(ids) + len(said)
    self._last = said[-1]
    return self._words.decode(said[:-1] if found[0].stopped else said)


def _model() -> Conversation:
  """A conversation with the published model of --model."""
  published = policies.find(FLAGS.model)
  if published is None:
    raise ValueError(
      f'--model={FLAGS.model!r} is a size, and a fresh model has nothing to '
      'say. Name a run by --init_from, or a published model, such as '
      f'--model={min(pretrained.PACKAGED)}.'
    )
  bounds = worlds.limits(FLAGS.limit, _LIMITS)
  words = policies.tokenizer_of(FLAGS.tokenizer, published)
  config = policies.configure(
    FLAGS.model,
    published,
    words,
    positions=bounds.segment_tokens,
    dtype=FLAGS.dtype,
  )
  sampler = sampler_lib.Sampler(
    config,
    programs.shape_for(bounds.segment_tokens, 1),
    stop_ids=words.stop_ids(()),
    seed=FLAGS.seed,
  )
  mesh = sharding.make_mesh(FLAGS.mesh)
  sampler.load(pretrained.load(published, config, mesh), 0)
  return Conversation(sampler, words, FLAGS.temperature, bounds.action_tokens)


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
  began = time.monotonic()
  print(f'Loading {FLAGS.model} ...', file=sys.stderr)
  conversation = _model()
  print(
    f'Loaded in {time.monotonic() - began:.1f} s. The first answer waits for '
    'compilation. An empty line ends.',
    file=sys.stderr,
  )
  for line in _lines('> '):
    console.print(conversation.reply(line), markup=False, highlight=False)


def _play(console: rich.console.Console, workdir: pathlib.Path) -> None:
  run = common.build(base_limits=run_config.restore_flags(workdir))
  run.sampler.load(train.load_params(workdir), 0)
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
  if FLAGS['model'].present and not FLAGS.init_from:
    _talk(console)
  else:
    _play(console, pathlib.Path(FLAGS.init_from or 'runs/quickstart'))


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.main(main)
