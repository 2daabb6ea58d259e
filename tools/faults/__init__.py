"""Faults that are injected into what melmask reads and writes, and what becomes of them: docs/reliability.md."""
