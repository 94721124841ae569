"""What is remembered: one store, and the operations on it.

A store is one SQLite database: a file that outlives its process, and of which
every change is whole even if the process is killed; or memory alone, of which
a `snapshot` is a value. It is found by key (exact), by words (BM25), by meaning
(vectors that a callable of yours makes), or as a graph of relations that hold
for a time. Times are numbers of the caller's choosing, such as turns.

The text form of an operation, which a policy says and `apply` does:

  add TEXT          add @home/bob TEXT       in a scope
  update 3 TEXT     delete 3     noop
  search WORDS      search @home WORDS       in that scope, and those within
"""

from agentic_jax.memory import operations
from agentic_jax.memory import records
from agentic_jax.memory import store

KINDS = records.KINDS
INDEXES = store.INDEXES
OPERATIONS = operations.OPERATIONS

Entry = records.Entry
Relation = records.Relation
WrongOperation = records.WrongOperation
retention = records.retention

Store = store.Store

Operation = operations.Operation
read = operations.read
apply = operations.apply
