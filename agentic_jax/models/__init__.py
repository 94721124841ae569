"""The policy network: one transformer, its sizes and its attention."""
