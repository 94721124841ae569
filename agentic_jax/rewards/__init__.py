"""Scorers: what an answer, a text or a state is worth, from 0 to 1."""

from agentic_jax.rewards import answers

SCORERS = {'exact': answers.exact, 'numeric': answers.numeric}
