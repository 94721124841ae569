"""Situations that are nearly the same, on the host."""

from collections.abc import Iterable
import difflib


def merge_similar(
  texts: Iterable[str], *, threshold: float = 0.95
) -> list[str]:
  """Each text, or the first text before it that is nearly the same.

    similarity(a, b) = 2 × characters in common / characters of both

  in the sense of `difflib.SequenceMatcher`. As the state keys of the turns of
  a group, the results make `state_relative` compare turns whose situations
  differ by a clock or a counter, as GiGPO allows.

  Args:
    texts: such as the state keys of one group, in a fixed order; '' is unknown
      and like nothing. The time grows with the number of distinct ones
      squared.
    threshold: the least similarity, in (0, 1].

  Returns:
    As many strings as `texts`, in their order; each is one of `texts`.

  Raises:
    ValueError: `threshold` is not in (0, 1].

  References:
    Feng et al., 2025, arXiv:2505.10978, and its code.
  """
  if not 0 < threshold <= 1:
    raise ValueError(
      'The similarity of texts is between 0 and 1, so 0 < threshold <= 1; got '
      f'{threshold=}. 1 merges equal texts only, 0.95 is a common choice.'
    )
  merged: dict[str, str] = {'': ''}
  firsts: list[str] = []
  found = []
  for text in texts:
    if text not in merged:
      merged[text] = _first_like(text, firsts, threshold)
      if merged[text] == text:
        firsts.append(text)
    found.append(merged[text])
  return found


def _first_like(text: str, firsts: list[str], threshold: float) -> str:
  """The first of `firsts` that is similar enough, or `text`."""
  # The matcher remembers what it learns of its second text.
  matcher = difflib.SequenceMatcher(None, '', text)
  for first in firsts:
    matcher.set_seq1(first)
    # The quick ratios are upper bounds, and spare most comparisons.
    if (
      matcher.real_quick_ratio() >= threshold
      and matcher.quick_ratio() >= threshold
      and matcher.ratio() >= threshold
    ):
      return first
  return text
