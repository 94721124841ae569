"""Search over a corpus: an index on disk, as a tool, on a port, and from afar.

`build` makes a folder of a corpus, which any number of processes open as
`Index` and share in memory; with `MiniLM` it finds by meaning as well.
`tool_of` makes of an index, or of a retriever that somebody serves (`Remote`),
what an agent may call.
"""

from agentic_jax.tools.search import building
from agentic_jax.tools.search import corpora
from agentic_jax.tools.search import embedding
from agentic_jax.tools.search import index
from agentic_jax.tools.search import passages
from agentic_jax.tools.search import remote
from agentic_jax.tools.search import serving

Hit = passages.Hit
Index = index.Index
MiniLM = embedding.MiniLM
Passage = passages.Passage
Remote = remote.Remote
Server = serving.Server
build = building.build
corpus = corpora.load
render = passages.render
tool_of = passages.tool_of
