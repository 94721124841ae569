"""What runs behind the wall; it imports nothing but Python's own library.

`server` speaks with the host and never runs a program. `zygote` holds nothing
but imported modules, and forks the processes that do. `jail` takes from such a
process what it must not have, and `interpreter` is what it then does.
"""
