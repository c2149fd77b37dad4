"""The command line. Importing it is cheap: each command loads what it needs when it runs."""
