"""The one error that a user is meant to see."""


class PrunebenchError(Exception):
    """A mistake in the input that the user can mend.

    The message names the file, key or option at fault and what to do. The command line prints it without a traceback.
    """
