"""The decision code as machine code: made by mypyc from the very sources, used only while it is
theirs. Without it everything runs as Python, with the same results.
"""
