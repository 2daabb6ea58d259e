"""Events in time: from frozen features to onsets and offsets."""
