"""Procedural sound: a seeded synthesiser of sound, as a store and as a stream (`melmask docs procedural`)."""
