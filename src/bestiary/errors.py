"""What can go wrong for a user, each with what was got, what was wanted, where, and how to mend it.

Every error that a user's input can cause derives from `BestiaryError`; the command line prints it without a traceback
and ends with the exit code the class names (`docs/cli.md`).
"""


class BestiaryError(Exception):
    """An error whose message is written for the user.

    Args:
        message: what was got and what was wanted.
        where: file, file:line, annotation id or field that it concerns.
        mend: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.message, self.where, self.mend = message, where, mend
        text = f"{where}: {message}" if where else message
        super().__init__(f"{text}. {mend}" if mend else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle whole: errors cross from data workers to the main process."""
        return _rebuild, (type(self), self.message, self.where, self.mend)


def _rebuild(kind: type[BestiaryError], message: str, where: str | None, mend: str | None) -> BestiaryError:
    return kind(message, where=where, mend=mend)


class UsageError(BestiaryError):
    """A flag, field, name or argument that does not exist or does not fit."""

    exit_code = 2


class RecordError(BestiaryError, ValueError):
    """A record was built from fields of the wrong shape, type or value."""


class DataError(BestiaryError):
    """A data set cannot be read: no known format, a broken file, nothing in it."""

    exit_code = 3


class PictureError(DataError):
    """A picture cannot be decoded: missing, empty, truncated, too large, not a picture."""


class CheckpointError(BestiaryError):
    """A checkpoint or weights file is missing, broken, unsafe or does not fit the model."""

    exit_code = 4


class TrainingError(BestiaryError):
    """Training cannot go on: a loss is not finite, the disk is full, nothing to train on."""

    exit_code = 5


class ExportError(BestiaryError):
    """A graph could not be exported or does not equal the model."""

    exit_code = 6


class MissingExtraError(BestiaryError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 7

    @classmethod
    def of(cls, package: str, extra: str) -> "MissingExtraError":
        """The error for `package`, which the extra `extra` installs."""
        return cls(f"{package} is not installed", mend=f'Install it with: pip install "bestiary[{extra}]"')
