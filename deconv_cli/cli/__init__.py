"""The command line: one file a command, with options, messages and exit codes; no pixels."""
