"""The errors that a user can see. Each message is one line: the field, what was given, what is allowed."""


class InputError(ValueError):
    """The user's input cannot be run; nothing was computed or overwritten."""


class NonFiniteError(RuntimeError):
    """A loss, gradient or message became NaN or infinite; the message names the round and the worker."""


class WorkerLostError(RuntimeError):
    """A worker process stopped answering; the message names the round and the timeout."""
