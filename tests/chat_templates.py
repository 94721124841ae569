"""Chat templates that behave as those of published families do.

Written for the tests, not copied: what matters of each is kept (roles, default
system messages, tools, thoughts that are dropped from earlier turns, refusals).
"""

import json
import pathlib

import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers

CHATML = """
{%- for m in messages %}
{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# A system message of its own, if none is given.
SMOLLM2 = """
{%- for m in messages %}
{%- if loop.first and m.role != 'system' %}
{{- '<|im_start|>system\\nBe small.<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# Tools join the system message; what tools answer is a message of the user, one
# for all answers that follow each other.
_QWEN_OPENING = """
{%- set given = messages[0].role == 'system' %}
{%- set system = messages[0].content if given else default %}
{%- if tools %}
{{- '<|im_start|>system\\n' ~ (system ~ '\\n\\n' if system else '') }}
{{- '# Tools\\n<tools>' }}
{%- for tool in tools %}{{ '\\n' ~ tool | tojson }}{% endfor %}
{{- '\\n</tools><|im_end|>\\n' }}
{%- elif system %}
{{- '<|im_start|>system\\n' ~ system ~ '<|im_end|>\\n' }}
{%- endif %}
"""
_QWEN_ANSWER = """
{%- if loop.first or loop.previtem.role != 'tool' %}
{{- '<|im_start|>user' }}
{%- endif %}
{{- '\\n<tool_response>\\n' ~ m.content ~ '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}
{{- '<|im_end|>\\n' }}
{%- endif %}
"""

QWEN25 = (
  "{%- set default = 'Be Qwen.' %}"
  + _QWEN_OPENING
  + """
{%- for m in messages %}
{%- if m.role == 'tool' %}"""
  + _QWEN_ANSWER
  + """
{%- elif not (loop.first and given) %}
{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""
)

# Thoughts stay only after the last question of the user.
QWEN3 = (
  "{%- set default = '' %}"
  + _QWEN_OPENING
  + """
{%- set last = namespace(question=-1) %}
{%- for m in messages %}
{%- if m.role == 'user' %}{% set last.question = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'tool' %}"""
  + _QWEN_ANSWER
  + """
{%- elif m.role == 'assistant' and '</think>' in m.content %}
{%- set thought = m.content.split('</think>')[0].split('<think>')[-1] %}
{%- set said = m.content.split('</think>')[-1].lstrip('\\n') %}
{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > last.question %}
{{- '<think>\\n' ~ thought.strip('\\n') ~ '\\n</think>\\n\\n' }}
{%- endif %}
{{- said ~ '<|im_end|>\\n' }}
{%- elif not (loop.first and given) %}
{{- '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' ~ ('<think>\\n' if always_think else '') }}
{%- endif %}
"""
)

# The policy is made to think: its message begins inside the thought.
THINKING = '{%- set always_think = true %}' + QWEN3

# A token that begins the text; tools stand in the first question; a day.
LLAMA3 = """
{{- bos_token }}
{%- set given = messages[0].role == 'system' %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday: ' }}
{{- strftime_now('%d %b %Y') ~ '\\n\\n' }}
{{- (messages[0].content | trim if given else '') ~ '<|eot_id|>' }}
{%- set asked = namespace(yet=false) %}
{%- for m in messages %}
{%- if not (loop.first and given) %}
{%- set role = 'ipython' if m.role == 'tool' else m.role %}
{{- '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' }}
{%- if tools and m.role == 'user' and not asked.yet %}
{%- set asked.yet = true %}
{%- for tool in tools %}{{ tool | tojson(indent=4) ~ '\\n\\n' }}{% endfor %}
{%- endif %}
{{- m.content | trim ~ '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# No system message, and the two take turns.
GEMMA = """
{{- bos_token }}
{%- if messages[0].role == 'system' %}
{{- raise_exception('System role not supported') }}
{%- endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}
{%- endif %}
{%- set role = 'model' if m.role == 'assistant' else m.role %}
{{- '<start_of_turn>' ~ role ~ '\\n' ~ m.content | trim ~ '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""

TEMPLATES = {
  'chatml': CHATML,
  'smollm2': SMOLLM2,
  'qwen2.5': QWEN25,
  'qwen3': QWEN3,
  'thinking': THINKING,
  'llama3': LLAMA3,
  'gemma': GEMMA,
}

SPECIALS = (
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|begin_of_text|>',
  '<|start_header_id|>',
  '<|end_header_id|>',
  '<|eot_id|>',
  '<bos>',
  '<start_of_turn>',
  '<end_of_turn>',
)
MARKUP = ('<think>', '</think>', '<tool_call>', '</tool_call>')


def write(directory: pathlib.Path, name: str) -> None:
  """A tokenizer of bytes with everyone's special tokens, and a template."""
  alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
  vocabulary = {sign: i for i, sign in enumerate(alphabet)}
  tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens(list(SPECIALS))
  tokenizer.add_tokens(list(MARKUP))
  tokenizer.save(str(directory / 'tokenizer.json'))
  begins = {'llama3': '<|begin_of_text|>', 'gemma': '<bos>'}
  config = {
    'bos_token': begins.get(name),
    'eos_token': '<|endoftext|>',
    'chat_template': TEMPLATES[name],
  }
  (directory / 'tokenizer_config.json').write_text(json.dumps(config))
