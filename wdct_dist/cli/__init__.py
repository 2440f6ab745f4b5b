"""The command line. `main` reads the arguments; each command's work is imported when it is called."""
