"""All exceptions that bridgekd raises on purpose, with the exit code of the command line.

    BridgekdError                      1
    ├── InputError                     2  a recipe, file, model or setting is wrong
    │   └── DiskFullError              2  the disk is full
    └── StoppedError                   3  the work stopped early and its state is saved
        ├── HardLimitError             3  the spending limit of the ledger is reached
        ├── TeacherUnavailableError    3  no quota, wrong key, or no answer after all attempts
        ├── ServerUnavailableError     3  the assistant's server did not start or stopped answering
        └── OverbilledError            3  the server billed more than the request could cost

A message names the file or the setting, the value, the cause and the next step. Code translates a
foreign exception where it enters. A normal end, such as a used-up budget, is a value and no
exception.

>>> import bridgekd
>>> try:
...     bridgekd.plan("missing.yaml")
... except bridgekd.BridgekdError as error:
...     print(type(error).__name__, error.exit_code)
InputError 2
"""


class BridgekdError(Exception):
    """The root of all errors. The command line exits with `exit_code`."""

    exit_code = 1


class InputError(BridgekdError):
    """Something that the user can fix. The message says what to change.

    key: the dotted key of the recipe that it is about, whose line is then added.
    """

    exit_code = 2

    def __init__(self, message: str = "", key: str = "") -> None:
        super().__init__(message)
        self.key = key


class DiskFullError(InputError):
    """The disk has no free space for a file."""


class StoppedError(BridgekdError):
    """The work stopped early. Nothing is lost: the same command resumes it."""

    exit_code = 3


class HardLimitError(StoppedError):
    """The next request does not fit under the hard limit of the ledger."""


class TeacherUnavailableError(StoppedError):
    """The teacher rejects all requests or does not answer. The message has the cause."""


class ServerUnavailableError(StoppedError):
    """The assistant's server is not available. The texts that it generated so far are saved."""


class OverbilledError(StoppedError):
    """The server billed more than the reserved amount, so no limit is safe with this server."""
