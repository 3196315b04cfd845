"""The stores: one Protocol per role in `ports`, one adapter per role beside it."""
