"""Jitted prefill and decode over slots, and the host's view of the slots."""
