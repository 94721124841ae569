"""What a run measures: definitions, files, the progress display, warnings."""

from agentic_jax.metrics import compilation
from agentic_jax.metrics import definitions
from agentic_jax.metrics import progress
from agentic_jax.metrics import worries
from agentic_jax.metrics import writer

Definition = definitions.Definition
DEFINITIONS = definitions.DEFINITIONS
definition = definitions.definition
warnings_of = worries.warnings_of
Writer = writer.Writer
read = writer.read
Progress = progress.Progress
CompileCounter = compilation.CompileCounter
