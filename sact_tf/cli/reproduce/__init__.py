"""The project's own evidence, from nothing to pages: `sact-tf reproduce`."""
