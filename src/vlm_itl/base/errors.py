"""The one exception that is meant for the user."""


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, in which file, key or URL, what to do."""
