"""A world of reading alone: what stands in for pre-training of small policies.

  python experiments/memory_proof.py
  python experiments/search_proof.py

Published models can look a word up in what they read and copy it; a fresh
policy cannot, and learns it slowly from demonstrations that do so now and then.
Here each token of the answer is to be looked up. There is no strategy in it: a
proof trains one such policy, and all its seeds and arms begin with it.
"""

import random
import string
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types

_MOST = 12
_COPIED = 1 / 3
_ASKED = 6  # The most names of a question that is asked first.
_DIGITS = 0.4
_RELATIONS = ('aide', 'boss', 'heir', 'host', 'kin', 'mate', 'pal', 'twin')


class State(NamedTuple):
  """What is right."""

  answer: str


class Reading:
  """Facts, then those that are asked for in another order, to be copied.

  Facts are of a name and a digit, `ka7 mo3 zu1, zu ka`, to be answered by `zu1
  ka7`; in a share of the episodes they are of two names and a relation, `kibo
  pal lomu; lomu kin deza, lomu kin; kibo pal`, to be answered by `lomu kin
  deza; kibo pal lomu`. In a share of those with digits the question is first,
  and facts about some of its names may be missing, as in `zu bi ka?` and, in a
  line of its own, `ka7 mo3 zu1`: `zu1 ka7`, or, after `zu bi ka!`, the digits
  alone, `1 7`. In a third of all others nothing is asked for, as in `ka7 mo3
  zu1, all`, and all facts are the answer, in their order. What is answered is
  said twice or more. All chance is from the seed; of the task nothing is used.
  """

  grammar = protocol.Grammar()

  def __init__(
    self,
    *,
    letters: int = 2,
    triples: float = 0.5,
    missing: float = 0.0,
    said: int = 0,
  ):
    """Makes the world.

    Args:
      letters: of a name that has a digit.
      triples: share of the episodes whose facts have a relation.
      missing: share of the episodes with digits whose question is first.
      said: facts of an answer, which repeats what is asked for; at least twice.
    """
    self._letters = letters
    self._triples = triples
    self._missing = missing
    self._said = said

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The facts and what is asked."""
    del task
    rng = random.Random(f'reading/{seed}')
    number = rng.randint(2, _MOST)
    if rng.random() >= self._triples:
      facts, joint = _digits(rng, number, self._letters), ' '
      if rng.random() < self._missing:
        return self._begin(*_question(rng, facts), joint)
      name = lambda fact: fact[:-1]
    else:
      facts, joint = _triples(rng, -(-number // 2)), '; '
      name = lambda fact: fact.rpartition(' ')[0]
    if rng.random() < _COPIED:
      asked, names = facts, ['all']
    else:
      asked = rng.sample(facts, rng.randint(1, len(facts)))
      names = [name(fact) for fact in asked]
    return self._begin(
      f'{joint.join(facts)}, {joint.join(names)}', asked, joint
    )

  def _begin(
    self, prompt: str, right: list[str], joint: str
  ) -> types.Transition:
    times = max(2, self._said // len(right))
    state = State(joint.join(right * times))
    return types.Transition(state, types.Observation(prompt), state_key=prompt)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The end."""
    del seed
    right = self.grammar.parse(action).answer == state.answer
    return types.Transition(
      state,
      types.Observation(''),
      {'final': float(right)},
      terminated=True,
      state_key='ended',
    )

  def oracle(self, state: State) -> str:
    """The answer."""
    return f'<answer>{state.answer}</answer>'


def _digits(rng: random.Random, number: int, letters: int) -> list[str]:
  names = set[str]()
  while len(names) < number:
    names.add(''.join(rng.choices(string.ascii_lowercase, k=letters)))
  found = [name + rng.choice(string.digits) for name in sorted(names)]
  rng.shuffle(found)
  return found


def _question(rng: random.Random, facts: list[str]) -> tuple[str, list[str]]:
  """A question about some facts, not all of which are shown; the answer."""
  asked = rng.sample(facts, rng.randint(1, min(_ASKED, len(facts))))
  hidden = set(rng.sample(asked, rng.randint(0, len(asked) - 1)))
  shown = ' '.join(fact for fact in facts if fact not in hidden)
  names = ' '.join(fact[:-1] for fact in asked)
  right = [fact for fact in asked if fact not in hidden]
  if rng.random() < _DIGITS:
    return f'{names}!\n{shown}', [fact[-1] for fact in right]
  return f'{names}?\n{shown}', right


def _triples(rng: random.Random, number: int) -> list[str]:
  about = set[tuple[str, str]]()
  while len(about) < number:
    about.add((_entity(rng), rng.choice(_RELATIONS)))
  found = [f'{a} {r} {_entity(rng)}' for a, r in sorted(about)]
  rng.shuffle(found)
  return found


def _entity(rng: random.Random) -> str:
  letters = ('bcdfghjklmnprstvwxyz', 'aeiou') * 2
  return ''.join(map(rng.choice, letters))
