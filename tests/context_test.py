"""What the policy sees of an episode."""

import pytest

from agentic_jax import context
from agentic_jax import protocol


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
  with pytest.raises(ValueError, match='append_all, keep_last, omit, page'):
    context.load('keep')
  with pytest.raises(ValueError, match='does not take the settings'):
    context.load('keep_last', turn=1)
  for name, settings, message in [
    ('window', {'tokens': 0}, 'window wants tokens to be at least 1, got 0'),
    ('summarise', {'rounds': 0}, 'summarise wants rounds to be at least 1'),
    ('summarise', {'says': ' '}, 'asked for in words'),
    ('page', {'tokens': -1}, 'page wants tokens'),
    ('page', {'warn': 0.5}, 'wanted 0 < keep < warn < 1, got keep=0.5, warn'),
  ]:
    with pytest.raises(ValueError, match=message):
      context.load(name, **settings)


def test_a_window_slides_by_whole_turns():
  everything = spans(3)  # Tokens: 2 of the prompt, 3 of each turn.
  fits = lambda tokens: context.window(tokens=tokens)(everything)
  assert fits(11) is None
  for tokens in (8, 9, 10):
    assert list(fits(tokens)) == [everything[0], *everything[3:]]
  assert list(fits(5)) == [everything[0], *everything[5:]]
  # The newest observation stays, whatever its length.
  assert list(fits(4)) == list(fits(1)) == [everything[0], everything[-1]]


def test_a_summary_is_asked_for_and_begins_anew():
  ask = context.summarise(tokens=8, rounds=2, says='sum', reply='on')
  assert ask(spans(2)) is None
  wanted = context.Notice('sum', asks=True, reply='on')
  assert ask(spans(3)) == wanted
  made = spans(4)
  made[-2] = made[-2]._replace(summary=1)
  again = [made[0], *made[-2:]]
  assert list(ask(made)) == again
  # It grows on from there: once more, and then no more.
  assert ask(again + spans(1)[1:]) is None
  assert ask(again + spans(3)[1:]) == wanted
  again[1] = again[1]._replace(summary=2)
  assert ask(again + spans(3)[1:]) is None


def test_what_a_command_names_is_omitted():
  drop = context.omit(placeholder='gone')
  told = lambda command, n=3: drop(
    [s._replace(command=command) if s.turn == n - 1 else s for s in spans(n)]
  )
  assert told('') is None
  # Neither what there is not, nor what answers the command itself.
  assert told('0 4 9') is None and told('3') is None
  found = told('1, 2')
  where = [place for place, span in enumerate(found) if span.says]
  assert where == [2, 4]
  assert found[2] == context.Span('observation', (), 0, says='gone')
  assert [s for s in found if not s.says] == [
    s._replace(command='1, 2' if s.turn == 2 else '')
    for place, s in enumerate(spans(3))
    if place not in where
  ]
  # What is gone is not dropped once more.
  assert drop([*found[:-2], found[-2], found[-1]]) is None


def test_pages_go_at_once_after_a_warning():
  full = context.page(tokens=16, warn=0.6, keep=0.5, says='soon')
  assert full(spans(2)) is None  # 8 of 9.6.
  assert full(spans(3)) == context.Notice('soon')
  warned = spans(4)
  warned[6] = warned[6]._replace(notice='soon')
  assert full(warned) is None  # Once is enough.
  longer = [*warned, *spans(5)[-2:]]  # 17 tokens.
  kept = full(longer)
  # The prompt and two turns are the half of it; another warning may come.
  assert list(kept) == [longer[0], *longer[-4:]]
  longer[-1] = longer[-1]._replace(notice='soon')
  assert not any(span.notice for span in full(longer))


def test_a_context_of_commands_has_a_tag_for_them():
  plain = protocol.Grammar()
  assert context.grammar('page', plain) == plain
  assert context.grammar('omit', plain) == protocol.Grammar(omit='omit')
  own = protocol.Grammar(omit='drop')
  assert context.grammar('omit', own) is own
