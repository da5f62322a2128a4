"""The errors that a user can see. Each message is one line: the field, what was given, what is allowed."""


class InputError(ValueError):
    """The user's input cannot be used.

    Most inputs are rejected before the first round. Some, such as a batch that cannot be split or learning rates that
    differ between workers, are rejected in the round that meets them, after earlier rounds have been computed.
    """


class NonFiniteError(RuntimeError):
    """A loss, gradient or message became NaN or infinite; the message names the round and the worker."""


class DamagedError(RuntimeError):
    """Bytes that arrived are not a message; the error names the field and, once known, the round and the worker."""


class WorkerLostError(RuntimeError):
    """A worker process stopped answering; the message names the round and the timeout."""
