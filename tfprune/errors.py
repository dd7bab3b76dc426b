"""The one error that this package raises for something its user can mend, and its warning."""


class TfpruneError(ValueError):
    """Says what was expected, what came, and what to do, in one line."""


class PruningWarning(UserWarning):
    """What a user of the library should know of a result that is not an error."""
