"""Collections of recordings of any size: embedded in blocks, searched, and watched for what is new."""
