"""Gradients of a module, one row per worker: flat parameter vector, batch dealing, per-worker buffers, engines."""
