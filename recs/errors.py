"""Every error that this package raises on purpose.

One root, few children. Driver exceptions never leave `recs.stores`: they are wrapped there, `raise ... from exc`.
A message says what was asked, the value that was met and what is allowed or what to do.
"""

from __future__ import annotations


class RecsError(Exception):
    """Root of all errors of this package; its text is fit to show to a person."""


class SettingsError(RecsError):
    """A setting has a value that cannot be used."""


class InputError(RecsError):
    """What a person or a file handed in cannot be used."""


class NotFoundError(RecsError):
    """The thing asked for is not known."""


class LeakError(RecsError):
    """What is learned from holds the answer to what is tested; its numbers would mean nothing."""


class ModelError(RecsError):
    """The embedding model is missing, damaged or of the wrong shape."""


class OtherModelError(ModelError):
    """What is stored was embedded by another model than texts are now; the two cannot be compared."""


class RunError(RecsError):
    """A batch run cannot start or must not go on."""


class EmbeddedServerError(RecsError):
    """An embedded server cannot start, or does not answer."""


class StoreError(RecsError):
    """A store refused or failed. `store` names its role: documents, vectors, graph, metrics, state or cache."""

    def __init__(self, store: str, message: str) -> None:
        super().__init__(f"{store}: {message}")
        self.store = store
        self._message = message

    def __reduce__(self) -> tuple[type[StoreError], tuple[str, str]]:
        """Pickle with both arguments: the error may travel from the process where it was met to that of the run."""
        return type(self), (self.store, self._message)


class StoreUnavailableError(StoreError):
    """A store cannot be reached, or did not answer in time; the same call may succeed later."""


class BuildMissingError(StoreUnavailableError):
    """A build of vectors, or a part of it, is not there: lost, or of another installation. It can be computed anew."""


class SchemaVersionError(StoreError):
    """A store holds data of another schema version than this package writes."""
