"""Talks to a policy.

  python experiments/chat.py --init_from=runs/quickstart
  echo '3^17 mod 41' | python experiments/chat.py --init_from=runs/quickstart
  python experiments/chat.py --model=smollm2-135m
  python experiments/chat.py --model=smollm2-135m --environment=tool_math

Of a run it is given tasks, a line each, and acts in the run's own environment,
so a tool call is answered for real. So does a published model in the
environment that --environment names; named by --model alone it just answers,
line by line, and sees what the line `/image FILE` showed it before, if it can
see. It is greedy, unless --sample says otherwise, as in
--sample temperature=0.7 --sample top_p=0.9.
"""

from collections.abc import Iterator, Sequence
import functools
import pathlib
import sys
from typing import Any

from absl import flags
import numpy as np
import rich.console

from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.models import pretrained
from agentic_jax.rollout import photos
from agentic_jax.rollout import pictures
from agentic_jax.sampling import controls
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import slots as slots_lib
from experiments import common
from experiments import drafts
from experiments import inspecting
from experiments import policies
from experiments import run_config
from experiments import sample_flags
from experiments import sights
from experiments import worlds

FLAGS = flags.FLAGS

# Begins a line that shows an image, which goes with what is said next.
_SHOW = '/image '

_FORGOT = (
  '(There was no room for more: all that was said before this line is '
  'forgotten. --limit=segment_tokens=N and segment_images=N make room.)'
)

# Of a conversation; --limit goes before them.
_LIMITS = rollout.Limits(action_tokens=256, segment_tokens=1024)


class Conversation:
  """What was said in one slot: ids in, ids out.

  Attributes:
    ids: all that the slot holds, the policy's own tokens as it sampled them.
    forgot: whether the last reply had to begin anew.
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    words: tokenizer.Tokenizer,
    *,
    temperature: float,
    limit_tokens: int,
    sees: rollout.Images | None = None,
    limit_images: int = 1,
  ) -> None:
    """Begins with nothing said.

    Args:
      sampler: with parameters loaded.
      words: the policy's tokenizer.
      temperature: of sampling.
      limit_tokens: of a reply.
      sees: what the policy makes of an image; None if it sees none.
      limit_images: of the slot.
    """
    self.sampler, self.words, self.sees = sampler, words, sees
    self.ids: list[int] = []
    self.forgot = False
    self._temperature, self._limit = temperature, limit_tokens
    self._limit_images = limit_images
    self._turn = self._seen = 0

  def reply(self, text: str, images: Sequence[np.ndarray] = ()) -> str:
    """What the policy answers; begins anew when the slot is full.

    What is refused leaves the conversation as it was.

    Args:
      text: what is said to it.
      images: shown with it, uint8 [height, width, 3] each.

    Raises:
      ValueError: the policy cannot see them, or not as many; the text and a
        reply do not fit the slot.
    """
    shown = types.Observation(text, pictures.fit(tuple(images), self.sees))
    if len(images) > self._limit_images:
      raise ValueError(
        f'{len(images)} images at once, and a conversation has room for '
        f'{self._limit_images}; raise --limit=segment_images.'
      )
    closed = self.ids[-1:] == [self.words.eos_id]
    say = functools.partial(self.words.observation, closed=closed)
    ids, placed = pictures.say(say, shown, self.sees)
    room = self.sampler.limit_tokens - len(self.ids) - len(ids) - self._limit
    settings: dict[str, Any] = dict(turn=self._turn, limit_tokens=self._limit)
    goes_on = room >= 0 and self._seen + len(images) <= self._limit_images
    if self.ids and goes_on:
      self.forgot = False
      self.sampler.extend(0, ids, images=placed, **settings)
    else:
      ids, placed = pictures.say(self.words.prompt, shown, self.sees)
      self._refuse_long(len(ids))
      self.forgot = bool(self.ids)
      self.ids, self._seen = [], 0
      settings |= dict(draw=0, member=0, temperature=self._temperature)
      self.sampler.open(0, ids, images=placed, **settings)
    self._seen += len(images)
    found: list[slots_lib.Generated] = []
    while not found:
      found = self.sampler.tick()
    said = found[0].tokens.tolist()
    self._turn += 1
    self.ids += [*ids, *said]
    return self.words.decode(said[:-1] if found[0].stopped else said)

  def _refuse_long(self, size: int) -> None:
    room = self.sampler.limit_tokens - self._limit
    if size > room:
      raise ValueError(
        f'this is {size} tokens long in its template, and beside a reply of '
        f'{self._limit} there is room for {room}; say less, raise '
        '--limit=segment_tokens=N or lower --limit=action_tokens=N.'
      )


def converse() -> Conversation:
  """A conversation with the published model of --model.

  Raises:
    ValueError: it is not published.
  """
  published = policies.find_speaking(FLAGS.model)
  bounds = worlds.limits(FLAGS.limit, _LIMITS)
  sampling = sample_flags.chosen(recipe_lib.Sampling())
  if sampling.grammar:
    raise ValueError(
      f'--sample=grammar={sampling.grammar}: a conversation has no '
      'world, whose actions a grammar would describe; leave it out, or name a '
      'run by --init_from.'
    )
  words = policies.tokenizer_of(FLAGS.tokenizer, published, ())
  config = policies.configure(
    FLAGS.model,
    published,
    words,
    positions=bounds.segment_tokens,
    dtype=FLAGS.dtype,
  )
  policies.refuse_untrained(FLAGS.model, published, config)
  mesh = sharding.make_mesh(FLAGS.mesh)
  params = pretrained.load(published, config, mesh)
  drafting = drafts.load(FLAGS.speculate, bounds.segment_tokens, mesh)
  print('Loaded; compiling, which is done once ...', file=sys.stderr)
  sampler = sampler_lib.Sampler(
    config,
    programs.shape_for(
      bounds.segment_tokens, 1, segment_images=bounds.segment_images
    ),
    stop_ids=words.stop_ids(()),
    seed=FLAGS.seed,
    speculation=drafting,
    controls=controls.resolve(sampling, words),
  )
  sampler.load(params, 0)
  return Conversation(
    sampler,
    words,
    temperature=sampling.temperature,
    limit_tokens=bounds.action_tokens,
    sees=sights.of_world(config, published, words),
    limit_images=bounds.segment_images,
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
  images: list[np.ndarray] = []
  for line in _lines('> '):
    if line.startswith(_SHOW):
      images += _shown(conversation, line.removeprefix(_SHOW))
      continue
    try:
      said = conversation.reply(line, images)
    except ValueError as error:
      # The images stay for the next line.
      print(f'Not said: {error}', file=sys.stderr)
      continue
    images = []
    if conversation.forgot:
      print(_FORGOT, file=sys.stderr)
    console.print(said, markup=False, highlight=False)


def _shown(conversation: Conversation, path: str) -> list[np.ndarray]:
  """The image of a file; nothing, and why on the terminal, if there is none."""
  try:
    if conversation.sees is None:
      raise ValueError(
        f'--model={FLAGS.model!r} sees no images; name one that does, such as '
        'the directory of a SmolVLM.'
      )
    return [photos.read(path.strip(), conversation.sees.size)]
  except ValueError as error:
    print(f'Error: {error}', file=sys.stderr)
    return []


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
      temperature=run.sampling.temperature,
      workers=run.workers,
    )
    inspecting.show(console, run.world.tokenizer, episode)


def main() -> None:
  """Reads lines from the terminal and answers them."""
  console = rich.console.Console()
  if FLAGS.init_from or not FLAGS['model'].present:
    workdir = pathlib.Path(FLAGS.init_from or 'runs/quickstart')
    bounds = run_config.restore_flags(workdir)
    run = common.build(base_limits=bounds, sampling=sample_flags.chosen)
    _play(console, run, policies.of_run(str(workdir), run.config))
  elif FLAGS['environment'].present:
    policies.find_speaking(FLAGS.model)
    if not FLAGS['slots'].present:
      FLAGS['slots'].value = 1  # One task at a time.
    run = common.build(base_limits=_LIMITS, sampling=sample_flags.chosen)
    _play(console, run, common.initial_state(run).policy)
  else:
    _talk(console)


flags.adopt_module_key_flags(common)
flags.adopt_module_key_flags(sample_flags)

if __name__ == '__main__':
  common.main(main)
