"""Episodes on the terminal as the model sees them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.text

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.train import records

# An image is shown in as many columns at most.
_COLUMNS = 32

_ROLE_STYLES = {
  'text': 'bold green',
  'think': 'magenta',
  'tool': 'bold cyan',
  'memory': 'blue',
  'plan': 'yellow',
  'switch': 'red',
  'summary': 'bright_blue',
}


def credit_of(
  recipe: recipe_lib.Recipe, apply: Callable, params: Any, batch: Any
) -> dict[int, list[list[float]]]:
  """The credit that a recipe gives the tokens of a batch, by episode, segment.

  Args:
    recipe: scores and credits.
    apply: (params, trajectory) -> Outputs.
    params: of the policy, and of the reference: those it began with.
    batch: a trajectory and its turns.
  """
  networks = recipe_lib.Networks(params, params, recipe.teacher)
  scored = recipe.score(apply, networks, batch.trajectory, batch.turns)
  credit = np.asarray(recipe.credit(scored, batch.turns).advantages)
  where = batch.trajectory
  return records.per_segment(credit, where.episode, where.segment)


def show_group(
  group: Sequence[types.Episode],
  tokenizer: Any,
  credit: dict[int, list[list[float]]],
) -> None:
  """Prints a legend and the episodes of a group."""
  console = rich.console.Console()
  legend(console)
  for index, episode in enumerate(group):
    show(console, tokenizer, episode, credit.get(index))


def legend(console: rich.console.Console) -> None:
  """Says what the colours mean."""
  text = rich.text.Text('Trained on: ')
  for role in ('think', 'tool', 'text'):
    text.append(f' {role} ', style=_ROLE_STYLES[role])
  text.append('   not trained on: ')
  text.append(' prompt and observations ', style='dim italic')
  console.print(text)


def show(
  console: rich.console.Console,
  tokenizer: Any,
  episode: types.Episode,
  advantages: list[list[float]] | None = None,
) -> None:
  """Prints the segments of an episode, coloured by role and mask.

  Args:
    console: of rich.
    tokenizer: for the pieces.
    episode: what happened.
    advantages: for each segment, of its tokens; shown where they change.
  """
  for number, segment in enumerate(episode.segments):
    text = rich.text.Text()
    shown = None
    pieces = tokenizer.pieces(segment.tokens.tolist())
    for i, piece in enumerate(pieces):
      if segment.sight is not None and segment.sight[i] >= 0:
        text.append_text(_picture(segment, i))
        continue
      acted = bool(segment.action_mask[i])
      style = _ROLE_STYLES[types.ROLES[segment.role[i]]]
      if acted and advantages is not None:
        value = advantages[number][i]
        if shown is None or abs(value - shown) > 1e-6:
          text.append(f'[{value:+.2f}]', style='reverse')
          shown = value
      text.append(
        piece.decode(errors='replace'), style=style if acted else 'dim italic'
      )
    console.print(text)
  if episode.failure:
    console.print(
      f'  the environment failed: {episode.failure}: {episode.detail}',
      markup=False,
    )
  rewards = ', '.join(
    f'turn {i}: '
    + (' '.join(f'{k} {v:+.4f}' for k, v in t.reward.items()) or 'none')
    for i, t in enumerate(episode.turns)
  )
  ended = 'truncated' if episode.truncated else 'ended'
  verdict = 'solved' if episode.success else 'not solved'
  line = f'{verdict}, {ended}, reward {episode.reward:+.4f} ({rewards})'
  if episode.baseline is not None:
    line += f', greedy members {sum(episode.baseline.values()):+.4f}'
  if not episode.task.answer:
    line = f'{ended} after {len(episode.turns)} turns; no answer to check it by'
  console.print(rich.text.Text(f'  {line}\n', style='dim'))


def _picture(segment: types.Segment, place: int) -> rich.text.Text:
  """The image whose tokens begin at a place, in blocks of two pixels each.

  Nothing at the places of its other tokens.
  """
  assert segment.images is not None and segment.sight is not None
  number = (int(segment.sight.max()) + 1) // len(segment.images)
  which, rest = divmod(int(segment.sight[place]), number)
  text = rich.text.Text()
  if rest:
    return text
  image = segment.images[which]
  step = -(-max(image.shape[:2]) // _COLUMNS)
  small = image[::step, ::step]
  if len(small) % 2:
    small = np.concatenate([small, small[-1:]])
  for upper, lower in zip(small[::2], small[1::2], strict=True):
    text.append('\n')
    for above, below in zip(upper, lower, strict=True):
      one, other = (f'rgb({r},{g},{b})' for r, g, b in (above, below))
      text.append('▀', style=f'{one} on {other}')
  return text.append('\n')
