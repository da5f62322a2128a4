"""Where workers are, and how what they send reaches the others."""
