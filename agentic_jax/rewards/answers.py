"""Whether an answer is the truth: as a text, as a number."""

import fractions
import re
import string

_PUNCTUATION = str.maketrans('', '', string.punctuation)
_NUMBER = re.compile(
  r'[+-]?(\d{1,3}(,\d{3})+|\d+)?(\.\d*)?([eE][+-]?\d{1,3})?'
  r'(\s*/\s*[+-]?\d+)?'
)
_MAX_LENGTH = 200


def exact(answer: str, truth: str) -> float:
  """1.0 if the two texts agree up to case and whitespace, else 0.0.

  An empty answer is never right.
  """
  words = answer.casefold().split()
  return float(bool(words) and words == truth.casefold().split())


def normalised(answer: str, truth: str) -> float:
  """1.0 if the texts agree up to case, punctuation and articles, else 0.0.

  The exact match of question answering: `The Pal!` is `pal`. An answer of
  which nothing is left is never right.
  """
  words = _words(answer)
  return float(bool(words) and words == _words(truth))


def _words(text: str) -> list[str]:
  bare = text.casefold().translate(_PUNCTUATION)
  return [word for word in bare.split() if word not in ('a', 'an', 'the')]


def numeric(answer: str, truth: str, *, tolerance: float = 0.0) -> float:
  """1.0 if the two texts are one number, else 0.0.

  The answer has to be a single number (`14`, `1,000`, `2.50`, `1/2`, `1e3`)
  and nothing else: neither a list to choose from nor an expression to
  evaluate. If the truth is no number, the texts are compared by `exact`.

  Args:
    answer: what the policy said.
    truth: what is right.
    tolerance: the largest allowed difference, relative to the truth; 0 asks
      for equality, in exact arithmetic.

  Returns:
    0.0 or 1.0. Never raises.
  """
  wanted = number(truth)
  if wanted is None:
    return exact(answer, truth)
  given = number(answer)
  if given is None:
    return 0.0
  # A fraction of a float is exact, so that a tolerance of 0 is equality.
  slack = abs(wanted) * fractions.Fraction(tolerance)
  return float(abs(given - wanted) <= slack)


def number(text: str) -> fractions.Fraction | None:
  """The number that a text is, or None if it is not exactly one."""
  text = text.strip()
  if not text.isascii() or len(text) > _MAX_LENGTH:
    return None
  match = _NUMBER.fullmatch(text)
  if not match or not re.search(r'\d', match.group(0).split('e')[0]):
    return None
  above, _, below = text.replace(',', '').partition('/')
  try:
    value = fractions.Fraction(above.strip())
    return value / int(below) if below else value
  except (ValueError, ZeroDivisionError):
    return None
