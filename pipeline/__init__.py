"""The batch flow: Prefect tasks around the functions of `recs.ingest` and `recs.batch`."""
