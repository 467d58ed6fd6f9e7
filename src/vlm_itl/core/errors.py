"""The one exception that is meant for the user."""

from vlm_itl.core.redact import line


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, in which file, key or URL, what to do.

    File names and servers' words may be part of it, so secrets and control characters are taken out here, once for all errors.
    """

    def __init__(self, message: str) -> None:
        super().__init__(line(message))
