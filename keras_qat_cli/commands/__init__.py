"""The commands, one a file: `HELP`, `add_arguments(parser)` and `run(options)`."""
