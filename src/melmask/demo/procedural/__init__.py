"""Procedural sound: a seeded synthesiser of sound, as a store and as a stream (docs/procedural.md)."""
