"""The store: what every file said, and the tables made of it, on disk; the same command every Monday reads only what is new."""
