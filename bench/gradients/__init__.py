"""A module's gradients, one row a worker: its parameters as one vector, batches dealt, buffers kept apart, engines."""
