"""What lies between a policy and a world, from texts; no flags in here."""

from collections.abc import Callable, Sequence
import difflib
import json
import pathlib
import random
from typing import Any
from urllib import parse as urllib_parse

from agentic_jax import context
from agentic_jax import environments
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import tasks
from agentic_jax import tokenizer
from agentic_jax import tools
from agentic_jax import types
from agentic_jax.environments import adapters
from agentic_jax.tasks import pool
from agentic_jax.tasks import samplers


def make(
  *,
  environment: str,
  contexts: str,
  words: Callable[[protocol.Grammar], tokenizer.Tokenizer],
  limit: Sequence[str],
  base_limits: rollout.Limits,
  seed: int,
) -> rollout.World:
  """A world from the texts of flags.

  Args:
    environment: a name, or path.py:Name, with settings after a question mark.
    contexts: a name, with settings after a question mark.
    words: makes the tokenizer, from the world's grammar.
    limit: texts such as 'turns=4'.
    base_limits: what these begin with.
    seed: of the world's chance.

  Raises:
    ValueError: a text does not make sense; says what would.
  """
  name, _, query = environment.partition('?')
  context_name, _, context_query = contexts.partition('?')
  loaded = environments.load(name, **literals(query))
  grammar = getattr(loaded, 'grammar', protocol.Grammar())
  if not isinstance(grammar, protocol.Grammar):
    raise ValueError(
      f'--environment={environment!r}: its attribute grammar is {grammar!r}; '
      'wanted a protocol.Grammar, such as Grammar(plan="plan"), or none.'
    )
  grammar = context.grammar(context_name, grammar)
  fault = tools.fault(getattr(loaded, 'tools', ()))
  if fault:
    raise ValueError(f'--environment={environment!r}: of its tools {fault}.')
  return rollout.World(
    loaded,
    words(grammar),
    grammar,
    context.load(context_name, **literals(context_query)),
    limits(limit, base_limits),
    seed,
  )


def host(
  world: rollout.World, environment: str, kind: str, number: int
) -> rollout.World:
  """The world, its environment moved to where workers of a kind run it.

  Args:
    world: from `make`.
    environment: as `make` had it.
    kind: thread, process or ray.
    number: of workers.
  """
  name, _, query = environment.partition('?')
  seconds = world.limits.environment_seconds
  moved = rollout.hosted(
    world.environment, kind, number, name, literals(query), seconds
  )
  return world._replace(environment=moved)


def telling(world: rollout.World) -> str:
  """What a chat template makes of tools and of the past, for the user.

  Empty where there is no template: a tokenizer of bytes.
  """
  words, said = world.tokenizer, []
  if isinstance(words, tokenizer.ByteTokenizer):
    return ''
  names = ', '.join(tool['function']['name'] for tool in world.tools)
  if names and words.takes_tools():
    said.append(f'The chat template tells the policy of its tools: {names}.')
  elif names:
    said.append(
      'The chat template has no slot for tools, so the policy is not told of '
      f'{names}.'
    )
  if not words.keeps_past(tool=bool(world.tools)):
    said.append(
      'It drops thoughts of earlier turns; in episodes they stay as they were '
      'said.'
    )
  return ' '.join(said)


def limits(assignments: Sequence[str], base: rollout.Limits) -> rollout.Limits:
  """The limits of an episode from texts such as 'turns=4'.

  Args:
    assignments: what differs from `base`.
    base: the limits to begin with.

  Raises:
    ValueError: a name is unknown, or a value is no number of its kind.
  """
  found = base
  for text in assignments:
    name, _, value = text.partition('=')
    if name not in found._fields:
      close = difflib.get_close_matches(name, found._fields, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      raise ValueError(
        f'--limit={text!r}: there is no limit {name!r}.{hint} There are '
        f'{", ".join(found._fields)}.'
      )
    kind = type(getattr(found, name))
    try:
      number = kind(value)
    except ValueError:
      number = kind(-1)
    if number < 0 or (number == 0 and kind is int):
      raise ValueError(
        f'--limit={text!r}: wanted a positive number such as '
        f'{getattr(found, name)}, got {value!r}.'
      )
    found = found._replace(**{name: number})
  return found


def literals(query: str) -> dict[str, Any]:
  """Settings from the query of a flag, as in keep_last?turns=2."""
  return {k: _literal(v) for k, v in urllib_parse.parse_qsl(query)}


def _literal(text: str) -> Any:
  if text in ('True', 'False'):
    return text == 'True'
  try:
    return json.loads(text)
  except json.JSONDecodeError:
    return text


def tasks_of(
  spec: str, environment: str, workdir: str, split: str
) -> Sequence[types.Task]:
  """The tasks of a split.

  Args:
    spec: of --tasks; '' is those of the environment.
    environment: of --environment.
    workdir: where tasks that are made are kept.
    split: train, validation or test.

  Raises:
    ValueError: there are none.
  """
  name = spec or environment.partition('?')[0]
  if name in environments.ADAPTERS:
    name = adapters.TASKS.get(name, 'seeds')
  name = environments.ON_DEVICE.get(name, name)
  if name in tasks.TASKS:
    return tasks.load(name, split, str(pathlib.Path(workdir) / 'data'))
  if not spec:
    raise ValueError(
      f'--environment={name!r} has no tasks of its own; name some with '
      f'--tasks, such as a file.jsonl, or one of {sorted(tasks.TASKS)}.'
    )
  return tasks.load(name, split)


def draws_of(
  sampler: str,
  drawn_from: Sequence[types.Task],
  world: rollout.World,
  recipe: Any,
) -> samplers.Make:
  """What says which task comes next.

  Args:
    sampler: of --sampler.
    drawn_from: the tasks to train on.
    world: where they are solved.
    recipe: that learns from them.

  Raises:
    ValueError: there is no such sampler, or not for these.
  """
  name, _, query = sampler.partition('?')
  made = samplers.load(name, **literals(query))
  tried = pool.Pool(drawn_from, 0, made)
  if tried.measures and not recipe.uses_sampler:
    raise ValueError(
      f'--sampler={sampler} goes by what the policy achieves, and this recipe '
      'imitates: nothing is sampled. Take --sampler=uniform.'
    )
  if tried.restarts:
    rollout.refuse_restarts(
      world, branch=recipe.branch, demonstrations=recipe.demonstrations
    )
  return made


def find_stop(world: rollout.World) -> Callable | None:
  """A search for stop strings that are not single tokens; None if all are."""
  names = world.grammar.stop_strings
  single = set(world.tokenizer.stop_ids(names))
  several = [s for s in names if _not_single(world.tokenizer, s, single)]
  if not several:
    return None

  def find(ids: Sequence[int]) -> int | None:
    text = b''
    for count, piece in enumerate(world.tokenizer.pieces(ids), start=1):
      text += piece
      if any(stop.encode() in text for stop in several):
        return count
    return None

  return find


def _not_single(made, stop: str, single: set[int]) -> bool:
  ids = made.action(stop)
  return not (len(ids) == 1 and ids[0] in single)


def imitated(world: rollout.World, task: types.Task, seed: int) -> list[str]:
  """The actions that solve a task: the oracle's, or its answer.

  The environment is stepped with the seeds that `rollout.play` will use, so
  that what was planned is what happens.

  Raises:
    ValueError: there is neither oracle nor answer.
  """
  environment = world.environment
  if not hasattr(environment, 'oracle'):
    if not task.answer:
      raise ValueError(
        f'The task {task.prompt!r:.80} has no answer to demonstrate, and its '
        'environment no oracle(state).'
      )
    answer = protocol.Action(answer=task.answer)
    return [world.grammar.render(answer)]
  transition, actions = environment.reset(task, seed), []
  for turn in range(world.limits.turns):
    if transition.terminated or transition.truncated:
      break
    actions.append(environment.oracle(transition.state))
    turn_seed = rollout.derive_seed(seed, turn)
    transition = environment.step(transition.state, actions[-1], turn_seed)
  return actions


def guessed(
  world: rollout.World, task: types.Task, seed: int, member: int
) -> list[str]:
  """The actions of an agent that acts at random.

  It takes any of the actions that the environment calls admissible, or answers
  with some digits where it names none.

  Args:
    world: its environment is stepped with the seeds that `rollout.play` will
      use.
    task: to be played.
    seed: of the reset.
    member: of the group; another one guesses otherwise.
  """
  environment, actions = world.environment, list[str]()
  rng = random.Random(rollout.derive_seed(seed, member, 1))
  transition = environment.reset(task, seed)
  while len(actions) < world.limits.turns:
    if transition.terminated or transition.truncated:
      break
    if hasattr(environment, 'admissible'):
      action = rng.choice(list(environment.admissible(transition.state)))
    else:
      digits = ''.join(rng.choices('0123456789', k=rng.randint(1, 4)))
      action = world.grammar.render(protocol.Action(answer=digits))
    turn_seed = rollout.derive_seed(seed, len(actions))
    actions.append(action)
    transition = environment.step(transition.state, action, turn_seed)
  return actions


def refuse_inimitable(
  world: rollout.World, tasks: Sequence[types.Task]
) -> None:
  """Raises ValueError where no task can be demonstrated by `imitated`."""
  if hasattr(world.environment, 'oracle') or any(t.answer for t in tasks):
    return
  raise ValueError(
    'This recipe learns from demonstrations, and there are none: the '
    f'environment {type(world.environment).__name__} has no oracle(state) that '
    'says the right action, and no task has an answer. Give the environment an '
    'oracle or the tasks answers, or take a recipe that learns from its own '
    'episodes, such as --recipe=grpo.'
  )
