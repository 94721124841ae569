"""Every flag of a run.

absl's flags are global, which is why they are all defined here and nowhere
else; what differs between papers is set by `--set name=value` and checked
against the signature of the recipe.
"""

from absl import flags

from agentic_jax import context
from agentic_jax import environments
from agentic_jax import rollout
from agentic_jax.models import pretrained
from agentic_jax.models import sizes

flags.DEFINE_string(
  'workdir',
  'runs/run',
  'Directory of the run. The same command with the same directory goes on '
  'where it stopped.',
)
flags.DEFINE_enum(
  'resume',
  'auto',
  ['auto', 'never'],
  'auto: go on with a run that is there; never: refuse to.',
)
flags.DEFINE_integer('seed', 0, 'Of everything random.', lower_bound=0)
flags.DEFINE_string(
  'recipe',
  'grpo',
  'A page of experiments/ by its name, such as grpo, ppo or dpo, or a path.py.',
)
flags.DEFINE_multi_string(
  'set', [], 'A setting of the recipe, name=value. May be repeated.'
)
flags.DEFINE_string(
  'environment',
  'tool_math',
  f'One of {sorted(environments.ENVIRONMENTS)}, with an extra one of '
  f'{sorted(environments.ADAPTERS)}, or path.py:Name; settings '
  'after a question mark, as in tool_math?call_price=0.05.',
)
flags.DEFINE_string(
  'tasks',
  '',
  'What to train on: a name, tfds:NAME, or a file.jsonl of prompts and '
  'answers. By default the tasks of the environment.',
)
flags.DEFINE_string(
  'sampler',
  'uniform',
  'Which task comes next: uniform, each once an epoch; window?low=0.2&high='
  '0.8, those solved that often, by easiest and hardest those of a difficulty; '
  'curriculum?stages=3&threshold=0.7, easy ones first and the next stage once '
  'one is learned; restart?share=0.5, which begins episodes at turns of '
  'earlier ones.',
)
flags.DEFINE_string(
  'model',
  'mini',
  f'A fresh model of a size, one of {sorted(sizes.SIZES)}, or a published '
  'one: a directory with config.json, *.safetensors and tokenizer.json, a '
  f'file.gguf, or one of {sorted(pretrained.PACKAGED)}. Settings follow a '
  'question mark: mini?rank=8&targets=attention&base=int8&remat=block trains '
  'adapters of rank 8 alone; smollm2-135m?adapter=DIR begins with those that '
  'PEFT or export.py --adapter wrote.',
)
flags.DEFINE_enum(
  'dtype', 'float32', ['float32', 'bfloat16'], 'Of the parameters.'
)
flags.DEFINE_string(
  'tokenizer',
  '',
  'byte, or the path of a tokenizer.json. By default that of a published '
  'model, otherwise byte.',
)
flags.DEFINE_string(
  'init_from', '', 'Run directory whose last parameters to begin with.'
)
flags.DEFINE_integer('steps', 100, 'Batches to train on.', lower_bound=0)
flags.DEFINE_integer('tasks_per_step', 16, 'Groups of a batch.', lower_bound=1)
flags.DEFINE_string(
  'mesh', '', 'Such as data:2,fsdp:4; empty is a single device.'
)
flags.DEFINE_integer(
  'microbatch_rows', 32, 'Rows of one forward pass.', lower_bound=1
)
flags.DEFINE_float(
  'prefix_tree',
  0.0,
  'Share of the entries of a microbatch that its prefix tree has: what '
  'segments begin with alike is computed once, where that finds room. 0 '
  'computes rows as they are. It wants more than prefix_tree/wanted of a run.',
  lower_bound=0.0,
  upper_bound=0.99,
)
flags.DEFINE_integer('slots', 64, 'Episodes sampled at once.', lower_bound=1)
flags.DEFINE_string(
  'memory',
  '',
  'What sampling may take, such as 2GiB: parameters, slots, and segments that '
  'wait beside them for slow environments. Without --slots, as many slots as '
  'fit, up to the episodes of a step; with it, they must fit.',
)
flags.DEFINE_string(
  'speculate',
  '',
  'Who drafts several tokens for a pass of the policy, which keeps those that '
  'leave its distribution what it is: prompt:4, what followed the last tokens '
  'when they came before; layers:2,4, the first 2 layers of the policy; '
  'draft:PATH,4, another run or published model of the same vocabulary. By '
  'default nobody.',
)
flags.DEFINE_string(
  'workers',
  '2',
  'How many call the environment at once: 8 threads, or process:8, or ray:8, '
  'which outlive an environment that crashes.',
)
flags.DEFINE_integer(
  'staleness',
  0,
  'Batches that the parameters which sample lag behind: 0 waits for every '
  'update, 1 samples a batch while the one before is trained on.',
  lower_bound=0,
)
flags.DEFINE_string(
  'swap',
  '',
  'Whether parameters change within a batch, with --staleness of 1 or more: '
  'turn takes the newest ones at every turn and reads what was said before '
  'again, turn:stale keeps the cache of the older ones, replay:RUN repeats the '
  'swaps of another run, to the same tokens.',
)
flags.DEFINE_string(
  'context',
  'append_all',
  f'One of {sorted(context.CONTEXTS)}; settings after a question mark, as in '
  'keep_last?turns=2.',
)
flags.DEFINE_multi_string(
  'limit',
  [],
  'A limit of an episode, name=value, with names of '
  f'{", ".join(rollout.Limits._fields)}. May be repeated.',
)
flags.DEFINE_integer(
  'evaluate_every',
  20,
  'Steps between validations; 0 is none, -1 not even tests before and after.',
  lower_bound=-1,
)
flags.DEFINE_integer(
  'checkpoint_every', 20, 'Steps between checkpoints.', lower_bound=1
)
flags.DEFINE_bool(
  'inspect',
  False,
  'Print the first episodes as the model sees them, with role, mask, reward '
  'and advantage, and exit.',
)
