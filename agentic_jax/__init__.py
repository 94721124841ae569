"""Reinforcement learning of language-model agents in JAX.

types.py           records that cross modules; the alphabet of shapes
reductions.py      masked statistics over an axis and over groups; whitening
signatures.py      settings from texts, checked with a did-you-mean
tasks/             where tasks come from: generators, TFDS, JSON lines, pools
rewards/           scorers of text
environments/      where tasks are solved
tools/             what an agent may call
protocol.py        tag grammars: render, parse, stop strings, roles of tokens
memory/            a store on SQLite, and the operations on it
context.py         what the policy sees: everything, a window, a summary
tokenizer/         a byte tokenizer; any tokenizer.json, with chat templates
models/            the transformer, its sizes; published models in and out
probes.py          questions to the policy in contexts that nobody sampled
sharding.py        mesh from a string, logical axis rules, placement
sampling/          jitted prefill and decode over slots
rollout/           environments x sampler -> episodes; limits, failures
batching/          episodes -> Trajectory: the one host-to-device crossing
advantages/        over time, over groups, over turns
losses/            ratios, surrogates, KL, value, weights
preferences/       scores of answers, pairs, lists; margins; reward models
distillation.py    divergences from a teacher, whole or truncated
recipe/            Recipe, its settings, and makers to start from
train/             the pure step, its compiled programs, the one loop
checkpoint/        save and restore everything a restart needs
metrics/           definitions; JSONL and TensorBoard; the progress display
evaluate.py        success and cost on held-out tasks
serve/             an OpenAI-compatible endpoint that records what it sampled
report/            run directory -> one HTML page
"""

__version__ = '0.1.0'
