"""Two who divide items between them, and do not know the other's values."""

import itertools
import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import negotiate

_GRAMMAR = protocol.Grammar()
_OFFER = re.compile(r'offer (\d{1,2}(?: \d{1,2})*)')
STAKES = ('own', 'joint', 'zero_sum')


class State(NamedTuple):
  """What there is, what was offered last, and whose turn it is."""

  deal: negotiate.Deal
  agent: int = 0  # Who moves.
  offer: negotiate.Items = ()  # What that one would get; () is no offer yet.
  turn: int = 0
  ended: bool = False


class Negotiate:
  """A turn is an offer, `<tool>offer 2 0 1</tool>`, accept, or walk.

  A task is one of `tasks.negotiate`. The two move in turn, and the policy plays
  both; each sees the items, what they are worth to itself, and what it is
  offered, and nothing else. An offer says what the other would get, who accepts
  it gets that, and the first the rest. Without a deal both get nothing: by
  `<tool>walk</tool>`, or after too many turns.

  What a deal is to either, its final reward, follows from the worth of what
  each gets, as a share of all items: with the stakes 'own' it is the own share,
  with 'joint' the mean of both, and with 'zero_sum' the difference of both. It
  comes when the deal is made, for both at once (`Transition.others`).
  """

  agents = 2

  def __init__(
    self,
    *,
    stakes: str = 'own',
    care: float = 0.0,
    max_turns: int = 10,
    turn_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      stakes: what the final reward is; one of `STAKES`.
      care: of the other's share, paid as a social reward.
      max_turns: of both together; then the world truncates the episode.
      turn_price: taken from the auxiliary reward for each turn.
      observability: 'partial' tells either what items are worth to itself;
        'full' also what they are worth to the other.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if stakes not in STAKES:
      raise ValueError(f'stakes is one of {", ".join(STAKES)}, got {stakes!r}.')
    if max_turns < 1 or min(care, turn_price) < 0:
      raise ValueError(
        'Two have at least 1 turn, and care and prices are not negative; got '
        f'{max_turns=}, {care=}, {turn_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._stakes, self._care, self._price = stakes, care, turn_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """What the first is told. The seed is not used.

    Raises:
      ValueError: if the prompt is no deal.
    """
    del seed
    state = State(negotiate.read(task.prompt))
    return types.Transition(
      state,
      types.Observation(self._introduce(state)),
      state_key=_key(state),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What the other is offered, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    said = ' '.join(parsed.calls[0].arguments.split()) if parsed.calls else ''
    after = state._replace(turn=state.turn + 1)
    if said == 'walk' or (said == 'accept' and state.offer):
      return self._end(after, made=said == 'accept')
    offer = _offered(state, said)
    says = f'error: {parsed.error or "offer, accept or walk"}'
    if offer is None and said == 'accept':
      says = 'error: nothing is offered'
    elif offer is None and said.startswith('offer'):
      items = ' '.join(map(str, state.deal.items))
      says = f'error: offer what the other gets of {items}'
    elif offer is not None:
      after = after._replace(agent=1 - state.agent, offer=offer)
      says = f'offer {" ".join(map(str, offer))}'
      if not state.offer:
        says = f'{self._introduce(after)}; {says}'
    truncated = after.turn >= self.max_turns
    after = after._replace(ended=truncated)
    return types.Transition(
      after,
      types.Observation(says),
      self._priced({}),
      truncated=truncated,
      state_key=_key(after),
      agent=after.agent,
    )

  def _end(self, state: State, made: bool) -> types.Transition:
    """The end: a deal was accepted by who moves, or there is none."""
    mover, deal = state.agent, state.deal
    shares = [0.0, 0.0]
    if made:
      shares[mover] = deal.value(mover, state.offer) / negotiate.WORTH
      rest = deal.rest(state.offer)
      shares[1 - mover] = deal.value(1 - mover, rest) / negotiate.WORTH
    state = state._replace(ended=True)
    return types.Transition(
      state,
      types.Observation(''),
      self._priced(self._reward(shares[mover], shares[1 - mover])),
      terminated=True,
      state_key=_key(state),
      agent=mover,
      others={1 - mover: self._reward(shares[1 - mover], shares[mover])},
    )

  def _reward(self, own: float, other: float) -> dict[str, float]:
    """What a deal is to one of the two, by the shares of both."""
    final = {
      'own': own,
      'joint': (own + other) / 2,
      'zero_sum': own - other,
    }[self._stakes]
    return {'final': final} | (
      {'social': self._care * other} if self._care else {}
    )

  def _priced(self, reward: dict[str, float]) -> dict[str, float]:
    return reward | ({'auxiliary': -self._price} if self._price else {})

  def _introduce(self, state: State) -> str:
    """What who moves is told first: `3 1 1 worth 1 3 4`."""
    agent = state.agent
    said = [state.deal.items, state.deal.worth[agent]]
    if self.observability == 'full':
      said.append(state.deal.worth[1 - agent])
    texts = [' '.join(map(str, numbers)) for numbers in said]
    return ' worth '.join(texts[:2]) + ''.join(f', {x}' for x in texts[2:])

  def admissible(self, state: State) -> tuple[str, ...]:
    """Offers of one item of a kind or all, and to accept or to walk."""
    ends = [(0, number) for number in state.deal.items]
    offers = [
      f'<tool>offer {" ".join(map(str, own))}</tool>'
      for own in itertools.product(*ends)
    ]
    return (*offers, '<tool>accept</tool>', '<tool>walk</tool>')

  def privileged(self, state: State) -> str:
    """What the items are worth to both."""
    return ' | '.join(' '.join(map(str, worth)) for worth in state.deal.worth)

  def oracle(self, state: State) -> str:
    """Offers and accepts the fairest division, as one who knows both.

    It accepts what is worth no less to it than that.
    """
    deal = state.deal
    first = negotiate.fairest(deal)
    own, other = first, deal.rest(first)
    if state.agent:
      own, other = other, own
    if state.offer:
      offered = deal.value(state.agent, state.offer)
      if offered >= deal.value(state.agent, own):
        return '<tool>accept</tool>'
    return f'<tool>offer {" ".join(map(str, other))}</tool>'


def _offered(state: State, said: str) -> negotiate.Items | None:
  """What the other would get; None if this is no offer."""
  match = _OFFER.fullmatch(said)
  offer = tuple(map(int, match[1].split())) if match else ()
  items = state.deal.items
  fits = len(offer) == len(items) and all(map(int.__le__, offer, items))
  return offer if fits else None


def _key(state: State) -> str:
  return f'{state.deal} {state.agent} {state.offer}'
