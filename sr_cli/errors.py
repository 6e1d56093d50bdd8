"""What can go wrong, by exit code. Messages are whole sentences: what, which file, what next."""


class SrxError(Exception):
    """Base of every error that srx reports without a traceback."""

    exit_code = 1


class InputError(SrxError):
    """One input cannot be read or one output cannot be written; the batch goes on."""

    exit_code = 1


class UsageError(SrxError):
    """An option or argument has a value that makes no sense."""

    exit_code = 2


class ModelError(SrxError):
    """A model, its weights or its card is missing, damaged or of the wrong kind."""

    exit_code = 3


class DeviceError(SrxError):
    """The device is missing or its memory does not suffice."""

    exit_code = 4
