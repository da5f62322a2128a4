"""SIGTERM between real processes: told with the reports of a round, after which all processes end together.

Lightning broadcasts a flag before every batch instead, which is one more exchange a round, and from within the signal's
handler, where another exchange may be under way.
"""

import os
import signal
import threading
from types import FrameType

import lightning

from bench.collectives.processes import ProcessWorld


def end_with_others(trainer: lightning.Trainer, world: ProcessWorld) -> None:
    """From now on SIGTERM marks this process's next report. Lightning restores the handler after the fit.

    A process that reaches no report for as long as others would wait for it ends at once.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None
    signals = trainer._signal_connector
    world.ending |= signals.received_sigterm  # while the fit was set up; alone, this process would end before others
    signals.received_sigterm = False
    before = signals._original_handlers.get(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        return  # where signals cannot be handled

    def note(number: int, frame: FrameType | None) -> None:
        if not world.ending:
            if (launcher := trainer.strategy.launcher) is not None:
                launcher.kill(signal.Signals(number))  # the processes that this one has started
            world.patience = threading.Timer(world.timeout.total_seconds(), os._exit, [128 + number])
            world.patience.daemon = True
            world.patience.start()
        world.ending = True
        if callable(before):
            before(number, frame)  # pyright: ignore[reportArgumentType]

    signal.signal(signal.SIGTERM, note)
