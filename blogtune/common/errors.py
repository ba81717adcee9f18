"""The one exception that a person is meant to read.

Everything a user can mend raises `UserError` with one line: what is wrong, where, what to do.
The stages print that line and exit with status 1; `--debug` prints the traceback as well.
Any other exception is a defect of ours and keeps its traceback.
"""


class UserError(Exception):
    """A problem with the input, the parameters or the machine, told in one line."""
