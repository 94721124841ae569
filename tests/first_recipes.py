"""The recipes that tests take where any would do: one of each kind."""

NAMES = (
  *('dapo', 'gigpo', 'grpo', 'ppo'),
  *('reinforce', 'rloo', 'supervised', 'turn_ppo'),
)
