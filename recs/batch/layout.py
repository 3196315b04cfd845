"""The layouts of the stores that are not SQL, brought up to date by the one process that may write."""

from __future__ import annotations

from recs.bootstrap import Stores
from recs.stores.ports import VersionedStore


def bring_up_to_date(stores: Stores) -> None:
    """Migrate what an older version of this package wrote; the caller holds the right to run.

    Raises SchemaVersionError where a store was written by a newer one. Cut off anywhere, it is finished by the next
    call. The SQL stores have done so themselves when they were opened.
    """
    versioned: tuple[VersionedStore, ...] = (stores.documents, stores.vectors, stores.graph)
    for store in versioned:
        store.bring_up_to_date()
