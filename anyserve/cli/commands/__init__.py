"""What the user can type: one module per group, signatures and help only.

Each function hands over to the module that does the work, imported at that moment, so that
`anyserve --help` loads nothing but typer.
"""
