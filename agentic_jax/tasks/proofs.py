"""Propositions, what is a step of a proof, and theorems to be proved.

A proposition is an atom `p` to `s`, the false `0`, or one of `~A`, `(A&B)`,
`(A|B)`, `(A>B)`, where `~A` is `(A>0)`. The rules are those of intuitionistic
natural deduction, read backwards: a tactic replaces the first goal by what is
left to prove.
"""

from collections.abc import Callable, Iterator
import functools
import random
import re
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 900, 'validation': 60, 'test': 120}
ATOMS = 'pqrs'
TACTICS = (
  'intro',  # To prove A>B, suppose A and prove B.
  'split',  # To prove A&B, prove both.
  'left',  # To prove A|B, prove A.
  'right',  # To prove A|B, prove B.
  'exact',  # h: the goal is h.
  'apply',  # h: A>B proves the goal B, once A is proved.
  'cases',  # h: of A&B both; of A|B one after the other; of 0 anything.
  'exfalso',  # To prove anything, prove 0.
)
_MOST_HYPOTHESES = 12
_MOST_GOALS = 8
# Fewest and most tactics of a shortest proof, and most hypotheses of the
# theorem, by difficulty.
_LEVELS = {1: (2, 4, 2), 2: (5, 6, 3), 3: (7, 9, 4)}
_NODES = 400  # Looked at before a theorem is given up.


class Proposition(NamedTuple):
  """A proposition; two are equal if they are written alike."""

  kind: str  # An atom, '0', '&', '|' or '>'.
  left: 'Proposition | None' = None
  right: 'Proposition | None' = None

  def __str__(self) -> str:
    """As `read` takes it."""
    if self.left is None:
      return self.kind
    if self.kind == '>' and self.right == FALSE:
      return f'~{self.left}'
    return f'({self.left}{self.kind}{self.right})'


FALSE = Proposition('0')


class Goal(NamedTuple):
  """What is to be proved, and from what."""

  hypotheses: tuple[Proposition, ...]  # h1, h2, ...
  claim: Proposition

  def __str__(self) -> str:
    """Hypotheses, `|-`, and the claim."""
    known = [f'h{i} {h}' for i, h in enumerate(self.hypotheses, 1)]
    return f'{", ".join(known)} |- {self.claim}'.strip()


Goals = tuple[Goal, ...]


class WrongTactic(ValueError):
  """A tactic does not fit the goal; the message is short."""


def read(text: str) -> Proposition:
  """The proposition of a text.

  Raises:
    ValueError: it is none.
  """
  found, rest = _read(text, 0)
  if found is None or rest != len(text):
    raise ValueError(
      'A proposition is an atom p to s, 0, ~A, (A&B), (A|B) or (A>B), such as '
      f'((p&q)>p); got {text!r:.80}. The tasks named "proofs" are such.'
    )
  return found


def _read(text: str, at: int, depth: int = 0) -> tuple[Proposition | None, int]:
  head = text[at : at + 1]
  if depth > 20:
    return None, at
  if head and head in ATOMS + '0':
    return Proposition(head), at + 1
  if head == '~':
    inner, at = _read(text, at + 1, depth + 1)
    return inner and Proposition('>', inner, FALSE), at
  if head != '(':
    return None, at
  left, at = _read(text, at + 1, depth + 1)
  kind = text[at : at + 1]
  right, at = _read(text, at + 1, depth + 1) if left else (None, at)
  if right is None or kind not in ('&', '|', '>') or text[at : at + 1] != ')':
    return None, at
  return Proposition(kind, left, right), at + 1


def holds(claim: Proposition, true: frozenset[str]) -> bool:
  """Whether a proposition is true where these atoms are, and no others."""
  if claim.left is None or claim.right is None:
    return claim.kind in true
  left, right = holds(claim.left, true), holds(claim.right, true)
  if claim.kind == '>':
    return right or not left
  return left and right if claim.kind == '&' else left or right


def apply(goals: Goals, tactic: str) -> Goals:
  """What is left to prove after a tactic; () is nothing.

  Args:
    goals: at least one; the tactic is about the first.
    tactic: one of `TACTICS`, and the hypothesis it is about, such as
      `apply h2`.

  Raises:
    WrongTactic: it does not fit.
  """
  match = re.fullmatch(r'(\w+)(?: h(\d{1,3}))?', tactic.strip())
  name, number = match.groups() if match else ('', None)
  if name not in TACTICS:
    raise WrongTactic(f'a tactic is {" ".join(TACTICS)}')
  goal, rest = goals[0], goals[1:]
  if (name in _ABOUT) != (number is not None):
    raise WrongTactic(f'{name} {"wants" if name in _ABOUT else "takes no"} h')
  if number is None:
    left = _RULES[name](goal)
  else:
    if not 1 <= int(number) <= len(goal.hypotheses):
      raise WrongTactic(f'there is no h{number}')
    left = _ABOUT[name](goal, int(number) - 1)
  if any(len(g.hypotheses) > _MOST_HYPOTHESES for g in left):
    raise WrongTactic('too many hypotheses')
  if len(left) + len(rest) > _MOST_GOALS:
    raise WrongTactic('too many goals')
  return left + rest


def _parts(claim: Proposition, kind: str, name: str):
  """The two parts of a claim of a kind."""
  if claim.kind != kind or claim.left is None or claim.right is None:
    raise WrongTactic(f'{name} wants A{kind}B')
  return claim.left, claim.right


def _intro(goal: Goal) -> Goals:
  left, right = _parts(goal.claim, '>', 'intro')
  return (Goal((*goal.hypotheses, left), right),)


def _split(goal: Goal) -> Goals:
  both = _parts(goal.claim, '&', 'split')
  return tuple(goal._replace(claim=claim) for claim in both)


def _left(goal: Goal) -> Goals:
  return (goal._replace(claim=_parts(goal.claim, '|', 'left')[0]),)


def _right(goal: Goal) -> Goals:
  return (goal._replace(claim=_parts(goal.claim, '|', 'right')[1]),)


def _exfalso(goal: Goal) -> Goals:
  return (goal._replace(claim=FALSE),)


def _exact(goal: Goal, number: int) -> Goals:
  if goal.hypotheses[number] != goal.claim:
    raise WrongTactic(f'h{number + 1} is not the goal')
  return ()


def _apply(goal: Goal, number: int) -> Goals:
  left, right = _parts(goal.hypotheses[number], '>', 'apply')
  if right != goal.claim:
    raise WrongTactic(f'h{number + 1} does not end in the goal')
  return (goal._replace(claim=left),)


def _cases(goal: Goal, number: int) -> Goals:
  known = goal.hypotheses
  about = known[number]
  if about == FALSE:
    return ()
  if about.kind not in ('&', '|') or about.left is None or about.right is None:
    raise WrongTactic('cases wants A&B, A|B or 0')
  before, after = known[:number], known[number + 1 :]
  parts: tuple[tuple[Proposition, ...], ...] = (about.left,), (about.right,)
  if about.kind == '&':
    parts = ((about.left, about.right),)
  return tuple(
    goal._replace(hypotheses=before + part + after) for part in parts
  )


_RULES: dict[str, Callable[[Goal], Goals]] = {
  'intro': _intro,
  'split': _split,
  'left': _left,
  'right': _right,
  'exfalso': _exfalso,
}
_ABOUT: dict[str, Callable[[Goal, int], Goals]] = {
  'exact': _exact,
  'apply': _apply,
  'cases': _cases,
}


def possible(goals: Goals) -> list[tuple[str, Goals]]:
  """The tactics that fit, each with what it leaves."""
  if not goals:
    return []
  number = range(1, len(goals[0].hypotheses) + 1)
  tactics = [f'{name} h{i}' for name in _ABOUT for i in number] + [*_RULES]
  found = []
  for tactic in tactics:
    try:
      found.append((tactic, apply(goals, tactic)))
    except WrongTactic:
      continue
  return found


def prove(goals: Goals, *, nodes: int = 20_000) -> list[str] | None:
  """A shortest proof of all goals; None if none was found.

  Args:
    goals: to be proved, one after the other.
    nodes: how many situations are looked at.
  """
  proof: list[str] = []
  for goal in goals:
    own = _prove_one(goal, nodes)
    if own is None:
      return None
    proof += own
  return proof


def _prove_one(goal: Goal, nodes: int) -> list[str] | None:
  """Breadth first: whatever is found first is a shortest proof."""
  seen: set[Goals] = {(goal,)}
  level: list[tuple[Goals, tuple[str, ...]]] = [((goal,), ())]
  while level:
    further = []
    for goals, tactics in level:
      for tactic, left in possible(goals):
        if not left:
          return [*tactics, tactic]
        if left not in seen:
          seen.add(left)
          further.append((left, (*tactics, tactic)))
      if len(seen) > nodes:
        return None
    level = further
  return None


def shape(claim: Proposition) -> str:
  """The text with atoms named in their order: theorems alike but for names."""
  names: dict[str, str] = {}
  rename = lambda m: names.setdefault(m[0], ATOMS[len(names)])
  return re.sub(f'[{ATOMS}]', rename, str(claim))


def tasks(split: str) -> Iterator[types.Task]:
  """The theorems of a split; the answer is the length of a shortest proof.

  Theorems alike but for the names of atoms are in one split, once.
  """
  kinds = {
    ('theorem', number): functools.partial(_theorem, *level)
    for number, level in _LEVELS.items()
  }
  about = lambda task: shape(read(task.prompt))
  return splits.generate(
    'proofs', split, kinds, SIZES[split], about=about, once=about
  )


def _theorem(
  fewest: int,
  most: int,
  known: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  """Hypotheses, and what follows from them, in one implication."""
  while True:
    hypotheses = [_draw(rng, 2) for _ in range(rng.randint(1, known))]
    facts = _follow(hypotheses)
    claim = rng.choice(facts)
    if rng.random() < 0.5:
      other = rng.choice(facts) if rng.random() < 0.5 else _draw(rng, 1)
      pair = [claim, other]
      rng.shuffle(pair)
      claim = Proposition('&' if other in facts else '|', *pair)
    for hypothesis in reversed(hypotheses):
      claim = Proposition('>', hypothesis, claim)
    if not fits(shape(claim)):
      continue
    proof = prove((Goal((), claim),), nodes=_NODES)
    if proof and fewest <= len(proof) <= most:
      return types.Task(0, str(claim), str(len(proof)))


def _draw(rng: random.Random, depth: int) -> Proposition:
  if depth == 0 or rng.random() < 0.25:
    return Proposition(rng.choice(ATOMS[:3]))
  kind = rng.choice('>>>&|~')
  left = _draw(rng, depth - 1)
  if kind == '~':
    return Proposition('>', left, FALSE)
  return Proposition(kind, left, _draw(rng, depth - 1))


def _follow(hypotheses: list[Proposition]) -> list[Proposition]:
  """What follows by taking apart and by modus ponens, in order."""
  facts = list(dict.fromkeys(hypotheses))
  for fact in facts:  # Which grows.
    new = [fact.left, fact.right] if fact.kind == '&' else []
    new += [f.right for f in facts if f.kind == '>' and f.left in facts]
    facts += [f for f in dict.fromkeys(new) if f and f not in facts]
  return facts
