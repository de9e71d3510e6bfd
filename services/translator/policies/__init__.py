"""When translated text is certain: pure functions of what was translated so far."""
