"""Which words of a hypothesis are certain: pure functions, each with its source."""
