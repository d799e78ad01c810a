"""The command line: arguments in, tables and progress bars out."""
