"""Looking for the operation whose backward fails: each remembers where it was called from."""

from __future__ import annotations

import warnings

from graphc.frontend.modes import anomaly
from graphc.frontend.settings_text import PrintsSettings


class set_detect_anomaly(PrintsSettings):
    """Switch anomaly mode on or off; as a `with` block, until its end. See detect_anomaly.

    >>> with graphc.autograd.set_detect_anomaly(True):
    ...     graphc.is_anomaly_enabled()
    True
    """

    def __init__(self, mode: bool, check_nan: bool = True) -> None:
        self.mode, self.check_nan = bool(mode), check_nan
        self._before = anomaly.enabled, anomaly.check_nan
        anomaly.enabled, anomaly.check_nan = self.mode, check_nan

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        anomaly.enabled, anomaly.check_nan = self._before


class detect_anomaly(PrintsSettings):
    """A block in which an error in backward() tells, in a warning, which line of the forward pass it belongs to.

    check_nan
        A gradient that holds a NaN is an error, too.

    >>> with graphc.autograd.detect_anomaly():
    ...     graphc.is_anomaly_enabled()
    True
    """

    def __init__(self, check_nan: bool = True) -> None:
        self.check_nan = check_nan
        warnings.warn("Anomaly Detection has been enabled. This mode will increase the runtime and should only be enabled for "
                      "debugging.", stacklevel=2)

    def __enter__(self) -> None:
        self._before = anomaly.enabled, anomaly.check_nan
        anomaly.enabled, anomaly.check_nan = True, self.check_nan

    def __exit__(self, *exception: object) -> None:
        anomaly.enabled, anomaly.check_nan = self._before


def is_anomaly_enabled() -> bool:
    """Whether anomaly mode is on.

    >>> graphc.is_anomaly_enabled()
    False
    """
    return anomaly.enabled


def is_anomaly_check_nan_enabled() -> bool:
    """Whether anomaly mode looks for NaNs.

    >>> graphc.is_anomaly_check_nan_enabled()
    True
    """
    return anomaly.check_nan
