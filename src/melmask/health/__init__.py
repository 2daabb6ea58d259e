"""The health of what melmask wrote: what a path is, and whether each of its parts is whole; nothing is changed."""
