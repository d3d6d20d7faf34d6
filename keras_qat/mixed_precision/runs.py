"""The measurements of a search: each made once, kept, and shown as progress."""

from __future__ import annotations

import keras

from keras_qat.mixed_precision.journal import Journal
from keras_qat.mixed_precision.measuring import Bench, Forms, Measured


class Runs:
    """Measures the models of a search.

    Args:
        bench: Runs the models.
        journal: Has the measurements of an interrupted search, and gets the new ones.
        total: The number of measurements.
        verbose: 0 for no progress bar, 1 or `"auto"` for a progress bar.
    """

    def __init__(self, bench: Bench, journal: Journal, total: int, verbose: int | str):
        self.bench, self._journal, self._done = bench, journal, 0
        shown = 0 if verbose == 0 else 1
        self._bar = keras.utils.Progbar(total, verbose=shown, unit_name="measurement")

    def measure(self, name: str, forms: Forms) -> Measured:
        """Returns a measurement: that of the journal, or a new one.

        Args:
            name: A name for it, unique in the search.
            forms: The form of each owner's layers.
        """
        known = self._journal.get(name)
        if known is None:
            found = self.bench.measure(forms)
            self._journal.put(name, [found.noise, found.metric])
        else:
            found = Measured(*known)
        self._done += 1
        self._bar.update(self._done)
        return found


def changed(forms: Forms, position: int, form: int) -> Forms:
    """Returns the forms with another form at a position.

    Example:
    >>> changed((0, 0, 0), 1, 2)
    (0, 2, 0)
    """
    return (*forms[:position], form, *forms[position + 1 :])
