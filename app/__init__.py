"""Thin callers of `recs`: the REST sidecar (`app.api`) and the workbench (`app.dashboard`)."""
