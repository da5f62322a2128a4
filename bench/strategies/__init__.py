"""Lightning strategies: what is called when, with workers simulated in one process or in a process each."""
