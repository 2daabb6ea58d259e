"""The built-in corpus: sampled instruments and synthesised speech."""
