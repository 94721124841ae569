"""Questions of several hops, whose facts two share, each those of the other's.

A question is an entity and relations, `kibo boss pal?`: the pal of the boss of
kibo. A fact is a passage of three words, `kibo boss nati`. Of the relations
each of the two has its own, and so its own passages; those of a question take
turns, so that nobody can answer it alone. The first is the one that is asked.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import random
import re
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.tasks import kb_search
from agentic_jax.tasks import long_doc
from agentic_jax.tasks import splits

SIZES = {'train': 1500, 'validation': 60, 'test': 150}
HOPS = (1, 2, 3, 4)
_PROMPT = re.compile(r'(\w+)((?: \w+)+)\?')
_PASSAGE = re.compile(r'\w+ \w+ \w+')
_OTHERS = 6  # Entities that lead away.


class Question(NamedTuple):
  """Where to begin, and which relations to follow."""

  entity: str
  relations: tuple[str, ...]


class Knowledge(NamedTuple):
  """What the two have, each its own."""

  passages: tuple[tuple[str, ...], tuple[str, ...]]

  def relations(self, agent: int) -> tuple[str, ...]:
    """The relations that passages of one of the two are about, sorted."""
    return tuple(sorted({text.split()[1] for text in self.passages[agent]}))


def read_question(text: str) -> Question:
  """The question of a prompt.

  Raises:
    ValueError: it is none.
  """
  match = _PROMPT.fullmatch(text)
  if not match:
    raise ValueError(
      'A question is an entity and relations, such as "kibo boss pal?"; got '
      f'{text!r:.80}. The tasks named "coop_search" are such.'
    )
  return Question(match[1], tuple(match[2].split()))


def read_knowledge(data: Mapping[str, Any]) -> Knowledge:
  """The passages in the data of a task.

  Raises:
    ValueError: there are none.
  """
  given = data.get('passages', ())
  proper = len(given) == 2 and all(
    own and all(isinstance(x, str) and _PASSAGE.fullmatch(x) for x in own)
    for own in given
  )
  if not proper:
    raise ValueError(
      "Two who search want passages of three words in the task's data, each "
      "its own: {'passages': [['kibo boss nati'], ['nati pal kama']]}; got "
      f'{given!r:.80}. The tasks named "coop_search" are such.'
    )
  return Knowledge((tuple(given[0]), tuple(given[1])))


def tasks(split: str) -> Iterator[types.Task]:
  """The questions of a split; difficulty is how many hops they take."""
  kinds = {('chain', hops): functools.partial(_task, hops) for hops in HOPS}
  return splits.generate('coop_search', split, kinds, SIZES[split])


def _task(
  hops: int, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  """The last hop is the other's, and hops take turns."""
  while True:
    names: list[str] = []
    while len(names) < hops + 1 + _OTHERS:
      name = long_doc.draw_name(rng)
      if name not in names and name not in kb_search.RELATIONS:
        names.append(name)
    words = rng.sample(kb_search.RELATIONS, 4)
    shares = words[:2], words[2:]
    path = [rng.choice(shares[(hops - hop) % 2]) for hop in range(hops)]
    prompt = f'{" ".join([names[0], *path])}?'
    if fits(prompt):
      break
  facts = dict(zip(zip(names, path), names[1 : hops + 1], strict=False))
  passages: tuple[list[str], list[str]] = ([], [])
  for own, relations in zip(passages, shares, strict=True):
    for name in names:
      relation = rng.choice(relations)
      end = rng.choice([other for other in names if other != name])
      facts.setdefault((name, relation), end)
    own += [' '.join((*a, b)) for a, b in facts.items() if a[1] in relations]
    rng.shuffle(own)
  data = {'passages': [passages[0], passages[1]]}
  return types.Task(0, prompt, names[hops], data=data)
