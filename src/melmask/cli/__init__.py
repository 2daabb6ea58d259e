"""The commands of the command line, by what they do; each only reads options, calls the library and shows."""
