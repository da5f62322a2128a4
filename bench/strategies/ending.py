"""Signals that tell a fit to end: it does after a round, in all processes together.

Between real processes the wish travels with the reports of a round. Lightning broadcasts a flag before every batch
instead, which is one more exchange a round, and from within the signal's handler, where another may be under way.
"""

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType

import lightning

from bench.collectives.processes import ProcessWorld
from bench.collectives.report import END
from bench.collectives.world import World


def end_on(numbers: Sequence[int], trainer: lightning.Trainer, world: World, received: list[int]) -> None:
    """From now on these signals mark this process's next report. Lightning restores the handlers after the fit.

    A second SIGINT interrupts at once. A process that reaches no report for as long as others would wait for it ends.

    Args:
        numbers: of the signals.
        trainer: of the fit.
        world: where the workers run.
        received: gets the number of the first one.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    signals = trainer._signal_connector
    if signals.received_sigterm:  # while the fit was set up; alone, this process would end before others
        world.asks |= END
        received.append(signal.SIGTERM)
        signals.received_sigterm = False
    if threading.current_thread() is not threading.main_thread():
        return  # where signals cannot be handled

    def note(number: int, frame: FrameType | None) -> None:
        if world.asks & END:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        world.asks |= END
        received.append(number)
        if (launcher := trainer.strategy.launcher) is not None:
            launcher.kill(signal.Signals(number))  # the processes that this one has started
        if isinstance(world, ProcessWorld):
            world.patience = threading.Timer(world.timeout.total_seconds(), os._exit, [128 + number])
            world.patience.daemon = True
            world.patience.start()
        if number == signal.SIGTERM and callable(before := signals._original_handlers.get(signal.SIGTERM)):
            before(number, frame)  # pyright: ignore[reportArgumentType]

    for number in numbers:
        signal.signal(number, note)
