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


class Preempted(RuntimeError):
    """The process was told to end, and has saved its run. `number`: the signal; 0 if another process was told."""

    def __init__(self, round: int, number: int) -> None:
        super().__init__(f"round {round}: told to end")
        self.round, self.number = round, number


class WorkerLostError(RuntimeError):
    """A worker process stopped answering; the message names the round and the timeout."""
