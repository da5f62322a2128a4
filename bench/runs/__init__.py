"""One run of the suite, and a grid of runs: settings, results on disk, callbacks, loggers, training problems."""
