"""The errors a user can meet. Each message is one line: the field, what was given, what is allowed."""


class InputError(ValueError):
    """Something the user gave cannot be run; nothing was computed or overwritten."""


class NonFiniteError(RuntimeError):
    """A loss, gradient or message became NaN or infinite; the message names the round and the worker."""


class WorkerLostError(RuntimeError):
    """A worker process stopped answering; the message names the round and the timeout."""
