"""The batch flow's work, written against the ports: what each stage does, without the engine that runs it.

`pipeline` wraps these functions in Prefect tasks; tests and `recs check --repair` call them directly. Every function
may be run again after a kill and leaves what one undisturbed run leaves.
"""
