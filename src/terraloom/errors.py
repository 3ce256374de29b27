"""Errors that Terraloom raises on purpose.

    TerraloomError
    |- InvalidInput (also a ValueError)   a value outside its allowed range
    |- BadCheckpoint                      weights that are missing, damaged or of another model
    '- BadPack                            a training pack that is missing, damaged or of another layout

Every message names the bad value, what is allowed and, where it helps, the fix. The command line turns any of
them into one sentence and exit code 2.
"""


class TerraloomError(Exception):
    """Base of every error that Terraloom raises on purpose."""


class InvalidInput(TerraloomError, ValueError):
    """A value that is outside its allowed range."""


class BadCheckpoint(TerraloomError):
    """Weights that are missing, damaged or belong to another model."""


class BadPack(TerraloomError):
    """A training pack that is missing, damaged or of another layout."""
