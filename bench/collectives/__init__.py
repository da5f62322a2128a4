"""Where workers run, and how their messages reach the others."""
