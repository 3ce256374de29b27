"""The verbs of the command line, one module per part of the house; `terraloom.cli` registers them."""
