"""Lightning strategies: the hooks in calling order, with workers simulated in one process or in one process each."""
