"""What the policy sees of an episode."""

import pytest

from agentic_jax import context


def spans(turns):
  """The spans after `turns` actions, each answered."""
  found = [context.Span('prompt', (1, 2), -1)]
  for turn in range(turns):
    found.append(context.Span('action', (10 + turn,), turn))
    found.append(context.Span('observation', (20 + turn, 0), turn))
  return found


def test_append_all_never_opens_a_segment():
  assert all(context.append_all(spans(n)) is None for n in range(5))
  assert context.load('append_all') is context.append_all


def test_keep_last_appends_while_nothing_has_to_go():
  keep = context.keep_last(turns=2)
  assert [keep(spans(n)) is None for n in range(5)] == [True] * 3 + [False] * 2


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_keep_last_keeps_the_prompt_and_the_last_turns(turns):
  everything = spans(5)
  kept = context.load('keep_last', turns=turns)(everything)
  assert list(kept) == everything[:1] + everything[-2 * turns :]


def test_keep_last_of_nothing_still_has_the_last_observation():
  everything = spans(3)
  kept = context.keep_last(turns=0)(everything)
  assert list(kept) == [everything[0], everything[-1]]


def test_errors():
  with pytest.raises(ValueError, match='0 turns or more'):
    context.keep_last(turns=-1)
  with pytest.raises(ValueError, match='append_all, keep_last'):
    context.load('keep')
  with pytest.raises(ValueError, match='does not take the settings'):
    context.load('keep_last', turn=1)
