"""Commands: parse flags, call sact_tf, print. Run as `sact-tf <command>`."""
