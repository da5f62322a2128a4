"""One run of the suite, and a grid of them: settings, results on disk, callbacks, loggers, problems to train."""
