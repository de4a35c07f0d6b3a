"""Everything this package raises on purpose, and the exit code each becomes.

    BridgekdError
    ├── InputError          2  a recipe, file, model or setting is wrong; the message says what to
    do │   └── DiskFullError      2  no room to write
    └── StoppedError           3  stopped with all state saved; the message says how to go on
        ├── HardLimitError      3  the ledger's own limit in real money is reached
        ├── TeacherUnavailableError   3  quota gone, key refused, or no answer after every retry
        ├── ServerUnavailableError    3  the assistant's server did not start, went away or serves
        another model └── OverbilledError    3  the server billed more than the call could cost

A message is one sentence or two: the value, the limit, the next step. Foreign exceptions are
translated where they enter. Expected ends, such as a budget that is used up, are values and not
exceptions.
"""


class BridgekdError(Exception):
    """The root; `exit_code` is what the command line returns."""

    exit_code = 1


class InputError(BridgekdError):
    """Something the user can mend: names the file, the line, the value and what to do."""

    exit_code = 2


class DiskFullError(InputError):
    """There is no room to write."""


class StoppedError(BridgekdError):
    """Work ended early; nothing is lost and the same command goes on."""

    exit_code = 3


class HardLimitError(StoppedError):
    """The ledger's hard stop does not admit the next call."""


class TeacherUnavailableError(StoppedError):
    """The teacher cannot be used now: quota, key, model, or silence after every retry."""


class ServerUnavailableError(StoppedError):
    """The assistant's server cannot be used now; what it wrote so far is kept."""


class OverbilledError(StoppedError):
    """An answer was billed above its reserve, so no limit can be kept with this server."""
