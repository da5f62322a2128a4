"""Messages, and the codes that turn them into bytes."""
