"""Reinforcement learning of language-model agents in JAX.

types.py           records that cross modules; the alphabet of shapes
reductions.py      masked statistics over an axis and over groups; whitening
tasks/             where tasks come from
rewards/           scorers of text and state
environments/      where tasks are solved
tools/             what an agent may call
protocol.py        tag grammars: render, parse, stop strings, roles of tokens
context.py         what the policy sees
memory.py          stores and the operations on them
tokenizer.py       a byte tokenizer; any tokenizer.json, with chat templates
models/            transformer, sizes, heads
sharding.py        mesh from a string, logical axis rules, placement
sampling/          jitted prefill and decode over slots
rollout.py         environments x sampler -> episodes; limits, failures
batching.py        episodes -> Trajectory: the one host-to-device crossing
advantages.py      over time, over groups, over turns
losses.py          ratios, surrogates, weights, KL, entropy, value
recipe.py          Recipe and the canonical makers
train.py           TrainState, train_step, run: the one loop
checkpoint.py      save and restore everything a restart needs
metrics.py         definitions; JSONL and TensorBoard; the progress display
evaluate.py        success and cost on held-out tasks
report/            run directory -> one HTML page
"""

__version__ = '0.1.0'
