"""Melmask's encoders under the interfaces of others; each module needs what it is named after, and nothing else."""
