"""Messages, and the codes that encode them as bytes."""
