"""Event detection: from frozen features of time steps to onsets and offsets."""
