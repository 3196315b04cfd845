"""The sample data and its generator; see README.md here."""
