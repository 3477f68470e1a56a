"""What a user is told when what they gave cannot be used."""


class RegardError(Exception):
    """What is wrong, where (file, line, flag, index), and what to do about it, in one message."""
