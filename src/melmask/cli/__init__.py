"""The command line, a file a command: each reads its options, calls the library and prints."""
