"""Random knowledge bases, how they are searched, and questions about them.

A fact is an entity, a relation and an entity, `kibo pal lomu`, and is a
passage of its own. What a chronicler says begins with its name, `east kibo pal
lomu`, and may be wrong. A question names where to begin and where to go:

  kibo's pal's boss?                            two hops
  how many of kibo lomu tani have pal deza?     three facts, and a count
  kibo's pal by most of east north west?        what two of three say
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import itertools
import random
import re
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 3000, 'validation': 104, 'test': 208}
RELATIONS = ('aide', 'boss', 'heir', 'host', 'kin', 'mate', 'pal', 'twin')
CHRONICLERS = ('east', 'north', 'west')
# Of each kind the difficulties: hops, facts to count, hops before the dispute.
HOPS = (1, 2, 3, 4, 6, 8, 10, 12)
COUNTED = (2, 3, 4)
DISPUTED = (1, 2)
_CONSONANTS, _VOWELS = 'bcdfghjklmnprstvwxyz', 'aeiou'
_CHAIN = re.compile(
  r"(\w+)((?:'s \w+)+)(\?| by most of " + ' '.join(CHRONICLERS) + r'\?)'
)
_COUNT = re.compile(r'how many of (\w+(?: \w+)*) have (\w+) (\w+)\?')
# Facts that lead away, the entities that they end in, and how often one of
# these is named: an answer is named four times at most.
_LEAST_DISTRACTING, _DECOYS, _MOST_NAMED = 8, 3, 5


class Question(NamedTuple):
  """What is asked; `entities` are one or, where facts are counted, several."""

  entities: tuple[str, ...]
  relations: tuple[str, ...]
  counted: str = ''  # The entity that facts are to end in.
  disputed: bool = False  # The last fact is what most chroniclers say.


class Next(NamedTuple):
  """What somebody does who knows some facts: a search, or else the answer."""

  query: str = ''
  answer: str = ''


def read_question(prompt: str) -> Question:
  """The question of a prompt.

  Raises:
    ValueError: it asks nothing that is known here.
  """
  if match := _COUNT.fullmatch(prompt):
    return Question(tuple(match[1].split()), (match[2],), match[3])
  if match := _CHAIN.fullmatch(prompt):
    relations = tuple(match[2].split("'s ")[1:])
    return Question((match[1],), relations, disputed=match[3] != '?')
  raise ValueError(
    f'A question is such as "kibo\'s pal\'s boss?", got {prompt!r:.80}. The '
    'tasks named "kb_search" are such.'
  )


def read_passages(data: Mapping[str, Any]) -> tuple[str, ...]:
  """The passages in the data of a task.

  Raises:
    ValueError: there are none.
  """
  passages = data.get('passages')
  if not passages or not all(isinstance(x, str) for x in passages):
    raise ValueError(
      "A search wants passages in the task's data: {'passages': ['kibo pal "
      f'lomu\', ...]}}; got {dict(data)!s:.80}. The tasks named "kb_search" '
      'are such.'
    )
  return tuple(passages)


def search(passages: Sequence[str], query: str, k: int) -> tuple[str, ...]:
  """The k passages that share most words with a query, in their order if tied.

  A word that a passage ends in counts once, the others, which it is about,
  twice. Passages that share none are not found.
  """
  wanted = set(re.findall(r'\w+', query.lower()))
  found = []
  for place, passage in enumerate(passages):
    *about, end = passage.split()
    score = 2 * len(wanted.intersection(about)) + (end in wanted)
    if score:
      found.append((-score, place))
  return tuple(passages[place] for _, place in sorted(found)[:k])


def consider(question: Question, known: Sequence[str]) -> Next:
  """What to do next, from what passages said so far."""
  facts: dict[tuple[str, ...], str] = {}
  for passage in known:
    *about, end = passage.split()
    facts[tuple(about)] = end
  if question.counted:
    return _consider_count(question, facts)
  here, *_ = question.entities
  last = len(question.relations) - 1
  for place, relation in enumerate(question.relations):
    if place == last and question.disputed:
      return _consider_dispute(here, relation, facts)
    there = facts.get((here, relation))
    if there is None:
      return Next(query=f'{here} {relation}')
    here = there
  return Next(answer=here)


def _consider_count(question: Question, facts: Mapping) -> Next:
  (relation,) = question.relations
  ends = []
  for entity in question.entities:
    if (entity, relation) not in facts:
      return Next(query=f'{entity} {relation}')
    ends.append(facts[entity, relation])
  return Next(answer=str(ends.count(question.counted)))


def _consider_dispute(here: str, relation: str, facts: Mapping) -> Next:
  """Asks one chronicler after the other until two agree."""
  said: list[str] = []
  for chronicler in CHRONICLERS:
    end = facts.get((chronicler, here, relation))
    if end is not None and end in said:
      return Next(answer=end)
    said += [] if end is None else [end]
  for chronicler in CHRONICLERS:
    if (chronicler, here, relation) not in facts:
      return Next(query=f'{chronicler} {here} {relation}')
  return Next(answer=said[0])


def tasks(split: str) -> Iterator[types.Task]:
  """The questions of a split, of all kinds and lengths.

  No entity of a split is one of another, so no fact is either.
  """
  kinds = [(_hops, 'hops', HOPS), (_count, 'count', COUNTED)]
  return _generate('kb_search', split, [*kinds, (_check, 'check', DISPUTED)])


def short_tasks(split: str) -> Iterator[types.Task]:
  """The questions of one hop and of two alone, for small policies."""
  return _generate('kb_search_short', split, [(_hops, 'hops', (1, 2))])


def long_tasks(split: str) -> Iterator[types.Task]:
  """The questions of six hops and more alone."""
  many = tuple(number for number in HOPS if number >= 6)
  return _generate('kb_search_long', split, [(_hops, 'hops', many)])


def _generate(
  name: str,
  split: str,
  kinds: Sequence[tuple['_Draw', str, Sequence[int]]],
) -> Iterator[types.Task]:
  makers = {
    (kind, number): functools.partial(_task, draw, number, entities(split))
    for draw, kind, numbers in kinds
    for number in numbers
  }
  return splits.generate(name, split, makers, SIZES[split])


@functools.cache
def entities(split: str) -> tuple[str, ...]:
  """The entities of a split."""
  letters = (_CONSONANTS, _VOWELS) * 2
  names = map(''.join, itertools.product(*letters))
  return tuple(name for name in names if splits.split_of(name) == split)


def _task(
  draw: '_Draw',
  number: int,
  names: Sequence[str],
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  taken: set[str] = set()

  def name() -> str:
    """An entity that no fact is about yet."""
    while (found := rng.choice(names)) in taken:
      continue
    taken.add(found)
    return found

  while True:
    taken.clear()
    prompt, passages, answer = draw(number, rng, name)
    if fits(prompt):
      break
  passages += _distract(rng, name, passages)
  rng.shuffle(passages)
  return types.Task(0, prompt, answer, data={'passages': passages})


def _hops(number: int, rng: random.Random, name: Callable[[], str]):
  relations = [rng.choice(RELATIONS) for _ in range(number)]
  chain = [name() for _ in range(number + 1)]
  passages = [f'{a} {r} {b}' for a, r, b in zip(chain, relations, chain[1:])]
  asked = "'s ".join([chain[0], *relations])
  return f'{asked}?', passages, chain[-1]


def _count(number: int, rng: random.Random, name: Callable[[], str]):
  """Facts of which any number ends in one entity."""
  relation, target = rng.choice(RELATIONS), name()
  entities = [name() for _ in range(number)]
  right = rng.sample(entities, rng.randint(0, number))
  passages = [
    f'{entity} {relation} {target if entity in right else name()}'
    for entity in entities
  ]
  # Others have it too: the target alone does not find the facts.
  passages += [f'{name()} {relation} {target}' for _ in range(number)]
  prompt = f'how many of {" ".join(entities)} have {relation} {target}?'
  return prompt, passages, str(len(right))


def _check(number: int, rng: random.Random, name: Callable[[], str]):
  """As many hops, of whose last fact one chronicler is wrong."""
  prompt, passages, answer = _hops(number, rng, name)
  here, relation, _ = passages.pop().split()
  said = [answer, answer, name()]
  rng.shuffle(said)
  passages += [
    f'{chronicler} {here} {relation} {end}'
    for chronicler, end in zip(CHRONICLERS, said, strict=True)
  ]
  by = f' by most of {" ".join(CHRONICLERS)}?'
  return prompt.removesuffix('?') + by, passages, answer


def _distract(
  rng: random.Random, name: Callable[[], str], passages: Sequence[str]
) -> list[str]:
  """Facts that lead away: of the same entities, and of the same relations.

  They end in a few decoys, one of which is named more often than any answer.
  """
  facts = [passage.split()[-3:] for passage in passages]
  taken = {(entity, relation) for entity, relation, _ in facts}
  about = []
  for entity in dict.fromkeys(x for fact in facts for x in (fact[0], fact[2])):
    free = [r for r in RELATIONS if (entity, r) not in taken]
    about += [(entity, relation) for relation in rng.sample(free, 2)]
  relations = list(dict.fromkeys(relation for _, relation, _ in facts))
  about += [(name(), relation) for relation in relations]
  while len(about) < _LEAST_DISTRACTING:
    about.append((name(), rng.choice(relations)))
  decoys = [name() for _ in range(_DECOYS)]
  ends = decoys[:1] * _MOST_NAMED
  ends += rng.choices(decoys, k=len(about) - len(ends))
  rng.shuffle(ends)
  return [f'{a} {r} {end}' for (a, r), end in zip(about, ends, strict=True)]


# (number, rng, name) -> the prompt, passages with the facts, the answer.
_Draw = Callable[
  [int, random.Random, Callable[[], str]], tuple[str, list[str], str]
]
